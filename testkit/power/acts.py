"""What a user and a processor do, one call each, and what anybody can see of it afterwards."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tidegate.access.principal import Principal
from tidegate.application.batches import cancel_batch, create_batch
from tidegate.application.context import Application
from tidegate.application.files import delete_file, upload
from tidegate.application.settings import Settings
from tidegate.application.upload_form import Field, FileStart, FormEvent
from tidegate.blobs.base import BlobStore
from tidegate.domain.batch import Batch
from tidegate.domain.blob_names import PlanBlob, ResultBlob
from tidegate.domain.claim import Claim
from tidegate.domain.errors import NotFound
from tidegate.domain.file import File, Part
from tidegate.domain.ledger.values import ClaimedShard, Commit, Plan, ShardCommit, Want
from tidegate.domain.shard import ShardPlan, Tally, Verdict, is_done
from tidegate.domain.share import Offer
from tidegate.endpoints.catalogue import Catalogue
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import list_offers
from tidegate.wire.batch_request import BatchRequest

TENANT = "default"
ENDPOINT = "/v1/chat/completions"
LEASE_SECONDS = 15.0
SHARD_LINES = 3
_MODEL = "m"
_SHARDS_MAX = 100
_FILES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that users and processors can learn: files and inputs with their bytes, batches, work."""

    files: tuple[tuple[File, bytes], ...] = ()
    batches: tuple[Batch, ...] = ()
    inputs: tuple[bytes | None, ...] = ()
    plans: tuple[bytes | None, ...] = ()
    offers: tuple[Offer, ...] = ()


class Acts:
    """One process: an application and a processor on these stores, under a name of their own."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Clock, ids: IdMaker) -> None:
        self.store = store
        self.blobs = blobs
        self.clock = clock
        self._ids = ids
        self._owner = ids.make("proc_")
        self._sequences: dict[Claim, int] = {}
        self._writers: dict[str, str] = {}
        self._ends: dict[str, int] = {}
        self._app = Application(
            settings=Settings(),
            store=store,
            blobs=blobs,
            pubsub=MemoryPubSub(),
            models=Catalogue({}, None),
            clock=clock,
            ids=ids,
        )

    def new_id(self, prefix: str) -> str:
        """Return an id that nothing has."""
        return self._ids.make(prefix)

    # A user

    async def upload(self, names: Sequence[str]) -> str:
        """Upload an input of one line for each name; return the file's id."""

        async def form() -> AsyncIterator[FormEvent]:
            yield Field(name="purpose", value="batch")
            yield FileStart(filename="input.jsonl")
            for name in names:
                yield json.dumps({"custom_id": name}).encode() + b"\n"

        return (await upload(self._app, Principal(tenant=TENANT), form())).id

    async def create(self, file_id: str) -> str:
        """Create a batch; return its id."""
        request = BatchRequest(
            input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={"a": "b"}
        )
        return (await create_batch(self._app, Principal(tenant=TENANT), request)).id

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch."""
        await cancel_batch(self._app, Principal(tenant=TENANT), batch_id)

    async def delete(self, file_id: str) -> None:
        """Delete a file."""
        await delete_file(self._app, Principal(tenant=TENANT), file_id)

    async def get(self, batch_id: str) -> Batch:
        """Return a batch."""
        return await self.store.get_batch(TENANT, batch_id)

    async def batches(self) -> tuple[Batch, ...]:
        """Return every batch, the latest first."""
        page = await self.store.list_batches(TENANT, after=None, limit=_FILES_MAX)
        assert not page.has_more
        return page.items

    # A processor

    async def plan(self) -> bool:
        """Plan the oldest batch that waits for it, or end it if it was cancelled."""
        claimed = await self.store.claim_planning(self._owner, lease_seconds=LEASE_SECONDS)
        if claimed is None:
            return False
        batch, now = claimed.batch, self.clock.now()
        if batch.is_cancelling:
            await self.store.end_unplanned(claimed.claim, problems=[], at=now)
            return True
        data = await self._bytes(await self.store.get_input(batch.id) or ())
        name = PlanBlob(batch_id=batch.id, epoch=claimed.claim.epoch).name
        async with self.blobs.writer(name) as writer:
            await writer.write(data)
            await writer.finish()
        shards = _shards(data)
        plan = Plan(
            blob=name,
            shards=shards,
            models=(_MODEL,),
            total=sum(shard.lines for shard in shards),
            output_file_id=self._ids.make("file-"),
            error_file_id=self._ids.make("file-"),
        )
        await self.store.plan_batch(claimed.claim, plan, at=now)
        return True

    async def claim(self, batch_id: str) -> tuple[ClaimedShard, ...]:
        """Claim every shard of a batch that is free."""
        wants = [Want(batch_id=batch_id, model=_MODEL, limit=_SHARDS_MAX)]
        claimed = await self.store.claim_shards(self._owner, wants, lease_seconds=LEASE_SECONDS)
        shards = claimed[0].shards if claimed else ()
        self._sequences |= {one.claim: one.shard.sequence for one in shards}
        return shards

    async def hand_back(self, claimed: ClaimedShard) -> None:
        """Give a shard up, so that another process may go on with it at once."""
        await self.store.hand_back([claimed.claim])

    async def commit(self, done: Sequence[tuple[ClaimedShard, Sequence[int]]]) -> None:
        """Record these lines of shards of one batch: bytes first, then ledger.

        The first line of all is recorded as failed.
        """
        batch = await self.get(done[0][0].shard.batch_id)
        results: dict[bool, list[tuple[int, bytes]]] = {False: [], True: []}
        for claimed, indexes in done:
            names = await self._names(batch, claimed)
            for index in indexes:
                line = json.dumps({"custom_id": names[index]}).encode() + b"\n"
                results[not results[True]].append((claimed.shard.plan.number, line))
        writer = await self._begun(batch.id)
        outputs = await self._append(batch.id, writer, "results", results[False])
        errors = await self._append(batch.id, writer, "errors", results[True])
        commit = Commit(
            segment_id=self._ids.make("seg_"),
            batch_id=batch.id,
            at=self.clock.now(),
            shards=tuple(
                self._shard_commit(claimed, indexes, outputs, errors) for claimed, indexes in done
            ),
            writer=writer,
        )
        verdicts = await self.store.commit(commit)
        assert set(verdicts) == {Verdict.ACCEPTED}, verdicts
        for claimed, _ in done:
            self._sequences[claimed.claim] += 1

    async def finish(self) -> bool:
        """Finalize a batch that waits for it."""
        claimed = await self.store.claim_finalizing(self._owner, lease_seconds=LEASE_SECONDS)
        if claimed is None:
            return False
        await self.store.finish_batch(claimed.claim, at=self.clock.now())
        return True

    async def run_to_the_end(self) -> None:
        """Take over all that is unfinished, once its claims have expired, and finish it."""
        while await self.plan():
            pass
        for batch in await self.batches():
            claimed = await self.claim(batch.id)
            before = set(await self.result_names(batch)) if claimed else set()
            for one in claimed:
                names = await self._names(batch, one)
                done = {name for i, name in enumerate(names) if is_done(one.shard.done, i)}
                assert done == before & set(names), "the bits are not the lines"
                undone = [i for i, name in enumerate(names) if name not in done]
                await self.commit([(one, undone)])
        while await self.finish():
            pass

    async def check_ended(self) -> None:
        """Hold every batch to its end: terminal, and with one result for each of its lines.

        The lines of a batch are called NAME-0, NAME-1 and so on. Where a user deleted results
        there is nothing to count.
        """
        for batch in await self.batches():
            assert batch.is_terminal, batch
            if not await self._shows_results(batch):
                continue
            names = await self.result_names(batch)
            counts = batch.counts
            assert len(names) == counts.completed + counts.failed == counts.total, (names, counts)
            name = names[0].partition("-")[0] if names else ""
            assert set(names) == {f"{name}-{number}" for number in range(counts.total)}, names

    # What is to be seen

    async def result_names(self, batch: Batch) -> list[str]:
        """Return the custom_id of every result line of a batch."""
        found: list[str] = []
        for file_id in _result_files(batch):
            _, parts = await self.store.get_parts(TENANT, file_id)
            found += _custom_ids(await self._bytes(parts))
        return found

    async def view(self) -> View:
        """Look at everything; every byte that a file is said to have must be readable."""
        page = await self.store.list_files(
            TENANT, after=None, limit=_FILES_MAX, ascending=True, purpose=None
        )
        assert not page.has_more
        files = []
        for listed in page.items:
            file, parts = await self.store.get_parts(TENANT, listed.id)
            data = await self._bytes(parts)
            assert len(data) == file.bytes, file
            files.append((file, data))
        batches = await self.batches()
        return View(
            files=tuple(files),
            batches=batches,
            inputs=tuple([await self._input(batch) for batch in batches]),
            plans=tuple([await self._plan(batch) for batch in batches]),
            offers=tuple(await list_offers(self.store)),
        )

    async def _shows_results(self, batch: Batch) -> bool:
        try:
            for file_id in _result_files(batch):
                await self.store.get_file(TENANT, file_id)
        except NotFound:
            return False
        return True

    async def _input(self, batch: Batch) -> bytes | None:
        parts = await self.store.get_input(batch.id)
        return None if parts is None or batch.is_terminal else await self._bytes(parts)

    async def _plan(self, batch: Batch) -> bytes | None:
        if batch.plan_blob is None or batch.is_terminal:
            return None
        data = await self._bytes(await self.store.get_input(batch.id) or ())
        return await self.blobs.read(batch.plan_blob, 0, len(data))

    async def _names(self, batch: Batch, claimed: ClaimedShard) -> list[str]:
        assert batch.plan_blob is not None, batch
        plan = claimed.shard.plan
        return _custom_ids(await self.blobs.read(batch.plan_blob, plan.offset, plan.length))

    async def _begun(self, batch_id: str) -> str:
        """Return the name under which this process writes results of a batch."""
        if batch_id not in self._writers:
            writer = self._ids.make("writer_")
            await self.store.begin_writer(
                writer, batch_id=batch_id, owner=self._owner, at=self.clock.now()
            )
            self._writers[batch_id] = writer
        return self._writers[batch_id]

    async def _append(
        self, batch_id: str, writer: str, label: str, lines: Sequence[tuple[int, bytes]]
    ) -> dict[int, Part]:
        """Append lines of shards, given by number; return the slice that holds each shard's."""
        if not lines:
            return {}
        name = ResultBlob(batch_id=batch_id, writer=writer, label=label).name
        offset = await self.blobs.append(
            name, b"".join(line for _, line in lines), after=self._ends.get(name, 0)
        )
        self._ends[name] = offset + sum(len(line) for _, line in lines)
        parts: dict[int, Part] = {}
        for number, line in lines:
            start = parts[number].offset if number in parts else offset
            offset += len(line)
            parts[number] = Part(blob=name, offset=start, length=offset - start)
        return parts

    def _shard_commit(
        self,
        claimed: ClaimedShard,
        indexes: Sequence[int],
        outputs: Mapping[int, Part],
        errors: Mapping[int, Part],
    ) -> ShardCommit:
        number = claimed.shard.plan.number
        failed = int(number in errors)
        return ShardCommit(
            number=number,
            epoch=claimed.claim.epoch,
            sequence=self._sequences[claimed.claim],
            indexes=tuple(indexes),
            output=outputs.get(number),
            errors=errors.get(number),
            tally=Tally(completed=len(indexes) - failed, failed=failed),
        )

    async def _bytes(self, parts: Sequence[Part]) -> bytes:
        return b"".join(
            [await self.blobs.read(part.blob, part.offset, part.length) for part in parts]
        )


class _Named(msgspec.Struct):
    custom_id: str


def _result_files(batch: Batch) -> list[str]:
    files = ((batch.output_file_id, batch.output_bytes), (batch.error_file_id, batch.error_bytes))
    return [file_id for file_id, size in files if file_id is not None and size]


def _custom_ids(data: bytes) -> list[str]:
    return [msgspec.json.decode(line, type=_Named).custom_id for line in data.splitlines()]


def _shards(data: bytes) -> tuple[ShardPlan, ...]:
    lines = data.splitlines(keepends=True)
    shards: list[ShardPlan] = []
    offset = 0
    for first in range(0, len(lines), SHARD_LINES):
        chosen = lines[first : first + SHARD_LINES]
        length = sum(map(len, chosen))
        shards.append(
            ShardPlan(
                number=len(shards), model=_MODEL, offset=offset, length=length, lines=len(chosen)
            )
        )
        offset += length
    return tuple(shards)
