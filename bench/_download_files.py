"""Makes output files of a wanted size and number of parts, through the real ledger and blobs."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tidegate.config import load
from tidegate.domain.batch import Batch, Status
from tidegate.domain.blob_names import PlanBlob, ResultBlob
from tidegate.domain.claim import Claim
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import Commit, Plan, ShardCommit, Want
from tidegate.domain.shard import ShardPlan, Tally, Verdict
from tidegate.wiring.context import Ports, open_ports

OWNER, TENANT, MODEL = "bench", "default", "m"
LEASE_SECONDS = 600.0
# This many commits wait for one flush of the ledger together.
COMMITS_AT_ONCE = 100


@dataclass(frozen=True)
class Output:
    """A file of results: what one batch wrote in a number of commits, its processors in turn."""

    file_id: str
    batch_id: str
    content: bytes
    parts: int


def make_output(data_dir: Path, *, size: int, commits: int, processors: int) -> Output:
    """Let `processors` end a batch of `commits` lines in turn, one line in each commit.

    Slices of one processor that follow each other become one part, so one processor makes one part,
    and several make as many as there are commits. Nothing else may use the data directory.
    """
    assert commits % processors == 0, "each has as many lines as the others"
    return asyncio.run(_make(data_dir, size, commits, processors))


async def _make(data_dir: Path, size: int, commits: int, processors: int) -> Output:
    settings = load(file=None, flags={"data_dir": data_dir}).settings
    async with AsyncExitStack() as stack:
        ports = await open_ports(settings, stack)
        lines = [_line(number, size // commits) for number in range(commits)]
        batch, claims = await _claimed(ports, await _planned(ports, commits, processors))
        blobs = [await _written(ports, batch, w, lines[w::processors]) for w in range(processors)]
        for start in range(0, commits, COMMITS_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for number in range(start, min(start + COMMITS_AT_ONCE, commits)):
                    turn, shard = divmod(number, processors)
                    part = Part(
                        blob=blobs[shard], offset=turn * len(lines[0]), length=len(lines[0])
                    )
                    work = _commit(ports, batch, claims[shard], (shard, turn), part)
                    group.create_task(work, name=f"commit {number}")
        held = await ports.store.claim_finalizing(OWNER, lease_seconds=LEASE_SECONDS)
        assert held is not None, "all lines are done"
        batch = await ports.store.finish_batch(held.claim, at=ports.clock.now())
        assert batch.output_file_id is not None, batch
        file, parts = await ports.store.get_parts(TENANT, batch.output_file_id)
    assert file.bytes == sum(map(len, lines)), file
    return Output(file.id, batch.id, b"".join(lines), len(parts))


def _line(number: int, length: int) -> bytes:
    head = b'{"id":"batch_req_%08d","custom_id":"line-%08d","response":"' % (number, number)
    return head.ljust(length - 3, b"x") + b'"}\n'


async def _planned(ports: Ports, lines: int, shards: int) -> Batch:
    """Create a batch and plan it, each line a byte of a plan that nobody reads."""
    now, file_id = ports.clock.now(), ports.ids.make("file-")
    upload_id = ports.ids.make("upload_")
    blob = f"uploads/{upload_id}"
    await ports.store.begin_upload(upload_id, tenant=TENANT, blob=blob, at=now)
    await ports.blobs.put(blob, b"\n")
    file = File(
        id=file_id, tenant=TENANT, filename="in", purpose=Purpose.BATCH, bytes=1, created_at=now
    )
    await ports.store.finish_upload(upload_id, file, [Part(blob=blob, offset=0, length=1)])
    batch = Batch(
        id=ports.ids.make("batch_"),
        tenant=TENANT,
        endpoint="/v1/chat/completions",
        input_file_id=file_id,
        completion_window="24h",
        status=Status.VALIDATING,
        created_at=now,
        expires_at=now + 86_400,
    )
    await ports.store.create_batch(batch)
    held = await ports.store.claim_planning(OWNER, lease_seconds=LEASE_SECONDS)
    assert held is not None, "nobody else is there to plan it"
    name = PlanBlob(batch_id=batch.id, epoch=held.claim.epoch).name
    await ports.blobs.put(name, bytes(lines))
    each = lines // shards
    plan = Plan(
        blob=name,
        shards=tuple(
            ShardPlan(number=n, model=MODEL, offset=n * each, length=each, lines=each)
            for n in range(shards)
        ),
        models=(MODEL,),
        total=lines,
        output_file_id=ports.ids.make("file-"),
        error_file_id=ports.ids.make("file-"),
    )
    return await ports.store.plan_batch(held.claim, plan, at=now)


async def _claimed(ports: Ports, batch: Batch) -> tuple[Batch, list[Claim]]:
    want = Want(batch_id=batch.id, model=MODEL, limit=1_000)
    (held,) = await ports.store.claim_shards(OWNER, [want], lease_seconds=LEASE_SECONDS)
    return batch, [one.claim for one in held.shards]


async def _written(ports: Ports, batch: Batch, processor: int, lines: list[bytes]) -> str:
    """Write all results of one processor, as it would append them one by one."""
    writer = _writer(batch, processor)
    now = ports.clock.now()
    await ports.store.begin_writer(writer, batch_id=batch.id, owner=OWNER, at=now)
    name = ResultBlob(batch_id=batch.id, writer=writer, label="results").name
    await ports.blobs.append(name, b"".join(lines))
    return name


async def _commit(
    ports: Ports, batch: Batch, claim: Claim, line: tuple[int, int], part: Part
) -> None:
    shard, index = line
    one = ShardCommit(
        number=shard,
        epoch=claim.epoch,
        sequence=index,
        indexes=(index,),
        output=part,
        errors=None,
        tally=Tally(completed=1),
    )
    segment_id = ports.ids.make("seg_")
    now, writer = ports.clock.now(), _writer(batch, shard)
    verdicts = await ports.store.commit(
        Commit(segment_id=segment_id, batch_id=batch.id, shards=(one,), at=now, writer=writer)
    )
    assert verdicts == [Verdict.ACCEPTED], verdicts


def _writer(batch: Batch, processor: int) -> str:
    return f"w{processor}-{batch.id}"
