"""A collector beside a deployment in memory, and what it reported while it worked."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from typing_extensions import override

from tidegate.collector.duty import CollectorContext
from tidegate.collector.observer import NullObserver, Observer
from tidegate.collector.service import Collector
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Batch
from tidegate.domain.blob_names import PlanBlob, ResultBlob
from tidegate.domain.errors import TidegateError
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import ClaimedShard, Commit, Plan, ShardCommit
from tidegate.domain.shard import ShardPlan, Tally, Verdict
from tidegate.processor.context import ProcessorContext
from tidegate.processor.fallback_finalizer import OWNER_PREFIX, FallbackFinalizer
from tidegate.processor.leases.renewer import TaskLeaseRenewer
from tidegate.processor.observer import (
    NullObserver as NullProcessorObserver,
    Observer as ProcessorObserver,
)
from tidegate.processor.settings import Settings as ProcessorSettings
from tidegate.testing.deployment import TENANT, Deployment
from tidegate.wire.plan_format import pack
from tidegate.wire.results import reply_line

DAY = 86_400.0
HOUR = 3_600.0


class RecordingObserver(Observer):
    """Remembers what an operator would see."""

    def __init__(self) -> None:
        self.damages: list[str] = []
        self.unknown_blobs: list[str] = []
        self.overdue_batches: list[str] = []
        self.errors: list[TidegateError] = []
        self.drifting: list[int] = []
        self.rerun: dict[str, int] = {}

    @override
    def on_blob_damaged(
        self, blob: str, *, needed: int, found: int | None, batches: tuple[str, ...]
    ) -> None:
        self.damages.append(blob)

    @override
    def on_unknown_blob(self, name: str) -> None:
        self.unknown_blobs.append(name)

    @override
    def on_batches_overdue(self, batch_ids: Sequence[str]) -> None:
        self.overdue_batches.extend(batch_ids)

    @override
    def on_interrupted(self, error: TidegateError) -> None:
        self.errors.append(error)

    @override
    def on_drift(self, blobs: int) -> None:
        self.drifting.append(blobs)

    @override
    def on_lines_rerun(self, batch_id: str, lines: int) -> None:
        self.rerun[batch_id] = self.rerun.get(batch_id, 0) + lines


def collector_of(
    deployment: Deployment, settings: Settings | None = None, observer: Observer | None = None
) -> Collector:
    """Return a collector of its own over the deployment's ledger and blobs."""
    return Collector(
        settings or Settings(),
        CollectorContext(
            store=deployment.store,
            blobs=deployment.blobs,
            clock=deployment.clock,
            ids=deployment.ids,
            orphan_finalizer=ender_of(deployment),
            observer=observer or NullObserver(),
        ),
    )


def ender_of(
    deployment: Deployment,
    settings: ProcessorSettings | None = None,
    observer: ProcessorObserver | None = None,
) -> FallbackFinalizer:
    """Return what ends batches of the deployment where no processor lives."""
    chosen = settings or ProcessorSettings()
    return FallbackFinalizer(
        ProcessorContext(
            settings=chosen,
            store=deployment.store,
            blobs=deployment.blobs,
            pubsub=deployment.pubsub,
            clock=deployment.clock,
            ids=deployment.ids,
            rng=random.Random(2),
            owner=OWNER_PREFIX,
            make_renewer=partial(TaskLeaseRenewer, chosen.claims, lambda: deployment.store),
            observer=observer or NullProcessorObserver(),
        )
    )


@asynccontextmanager
async def collecting(
    deployment: Deployment, settings: Settings | None = None, observer: Observer | None = None
) -> AsyncIterator[Collector]:
    """Run a collector beside the block; it is stopped at the end."""
    collector = collector_of(deployment, settings, observer)
    async with asyncio.TaskGroup() as group:
        group.create_task(collector.run(), name="collector")
        try:
            yield collector
        finally:
            collector.stop()


async def parts_of(deployment: Deployment, file_id: str) -> tuple[Part, ...]:
    """Return the parts of a file that the usual tenant sees."""
    return (await deployment.store.get_parts(TENANT, file_id))[1]


async def scattered(deployment: Deployment, pieces: Sequence[bytes]) -> str:
    """Store a file whose pieces lie apart, each in the midst of other bytes."""
    upload_id = deployment.ids.make("upload_")
    blob = f"uploads/{upload_id}"
    now = deployment.clock.now()
    await deployment.store.begin_upload(upload_id, tenant=TENANT, blob=blob, at=now)
    data = b""
    parts: list[Part] = []
    for piece in pieces:
        data += b"\0"
        parts.append(Part(blob=blob, offset=len(data), length=len(piece)))
        data += piece
    await deployment.blobs.put(blob, data)
    file = File(
        id=deployment.ids.make("file-"),
        tenant=TENANT,
        filename="scattered.bin",
        purpose=Purpose.USER_DATA,
        bytes=sum(map(len, pieces)),
        created_at=now,
    )
    await deployment.store.finish_upload(upload_id, file, parts)
    return file.id


async def planned(deployment: Deployment, batch: Batch, *, shards: int) -> Batch:
    """Plan a batch by hand, as the processor `proc` would: shards of two lines for the model `m`.

    The lines have the numbers and custom_ids 1 and "line-1", and so on.
    """
    held = await deployment.store.claim_planning("proc", lease_seconds=5.0)
    assert held is not None, "somebody plans it"
    blob = PlanBlob(batch_id=batch.id, epoch=held.claim.epoch).name
    data = b""
    cuts: list[ShardPlan] = []
    for number in range(shards):
        texts = [pack(n, b'"line-%d"' % n, b'{"model":"m"}') for n in _numbers(number)]
        length = sum(map(len, texts))
        cuts.append(
            ShardPlan(number=number, model="m", offset=len(data), length=length, lines=len(texts))
        )
        data += b"".join(texts)
    await deployment.blobs.put(blob, data)
    plan = Plan(
        blob=blob,
        shards=tuple(cuts),
        models=("m",),
        total=sum(cut.lines for cut in cuts),
        output_file_id=deployment.ids.make("file-"),
        error_file_id=deployment.ids.make("file-"),
    )
    return await deployment.store.plan_batch(held.claim, plan, at=deployment.clock.now())


async def results_of(
    deployment: Deployment, batch: Batch, held: ClaimedShard, writer: str, *, bad: bool = False
) -> list[Verdict]:
    """Commit the results of both lines of a shard under a writer's name; return the answer."""
    return await deployment.store.commit(await commit_of(deployment, batch, held, writer, bad=bad))


async def commit_of(
    deployment: Deployment, batch: Batch, held: ClaimedShard, writer: str, *, bad: bool = False
) -> Commit:
    """Write the results of both lines of a shard under a writer's name; return their commit.

    Bad ones go into the error file.
    """
    shard = held.shard
    label = "errors" if bad else "results"
    name = ResultBlob(batch_id=batch.id, writer=writer, label=label).name
    lines = [
        reply_line(
            f"batch_req_x_{n}",
            b'"line-%d"' % n,
            status=400 if bad else 200,
            upstream_id="x",
            body=b"{}",
        )
        for n in _numbers(shard.plan.number)
    ]
    data = b"".join(lines)
    offset = await deployment.blobs.append(name, data, after=0)
    slice_of_both = Part(blob=name, offset=offset, length=len(data))
    part = ShardCommit(
        number=shard.plan.number,
        epoch=held.claim.epoch,
        sequence=shard.sequence,
        indexes=tuple(range(len(lines))),
        output=None if bad else slice_of_both,
        errors=slice_of_both if bad else None,
        tally=Tally(failed=len(lines)) if bad else Tally(completed=len(lines)),
    )
    return Commit(
        segment_id=deployment.ids.make("seg_"),
        batch_id=batch.id,
        shards=(part,),
        at=deployment.clock.now(),
        writer=writer,
    )


def _numbers(shard: int) -> tuple[int, int]:
    return 2 * shard + 1, 2 * shard + 2
