"""Commits results: their bytes first, then the ledger (PROTOCOL 8 to 11)."""

import asyncio
from collections.abc import Callable
from itertools import groupby

from tidegate.domain.blob_names import ResultBlob
from tidegate.domain.errors import BlobMissing
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import Commit, ShardCommit
from tidegate.domain.shard import Tally, Verdict
from tidegate.domain.usage import Usage
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batch import OpenBatch, OpenBatches, ResultLine
from tidegate.processor.dispatch.open_shard import (
    CLOSED,
    LOST,
    RETURNING,
    OpenShard,
    OpenShardState,
)
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.pubsub.base import WORK

# Lines of one shard that are all results or all errors; never empty.
Group = list[ResultLine]


class Committer:
    """Commits the results of one batch, one at a time, until this processor holds none of it.

    `on_closed` is called with each shard that this processor no longer holds.
    """

    def __init__(
        self,
        open_batch: OpenBatch,
        context: ProcessorContext,
        open_batches: OpenBatches,
        gate: WriteGate,
        wakeups: Wakeups,
        *,
        on_closed: Callable[[OpenShard], None],
    ) -> None:
        self._open_batch = open_batch
        self._context = context
        self._open_batches = open_batches
        self._gate = gate
        self._wakeups = wakeups
        self._on_closed = on_closed
        self._settings = settings = context.settings.commits
        appends = context.blobs.appends
        self._interval = settings.append_seconds if appends else settings.put_seconds
        self._writer: str | None = None
        self._blob_ends: dict[str, int] = {}  # by blob: the end of the acknowledged bytes

    async def run(self) -> None:
        """Commit until the batch has no open shard and no uncommitted result here."""
        open_batch = self._open_batch
        while open_batch.shards or open_batch.results:
            await self._wait_until_due()
            results = self._take_for_commit()
            if results:
                await self._commit(results)
        self._open_batches.drop(open_batch)

    async def _wait_until_due(self) -> None:
        """Wait until there is something to commit and a reason to do it now (PROTOCOL 11)."""
        open_batch = self._open_batch
        while not open_batch.results and open_batch.shards:
            open_batch.changed.clear()
            await open_batch.changed.wait()
        open_batch.batching = self._settings
        deadline = asyncio.get_running_loop().time() + self._interval
        try:
            async with asyncio.timeout_at(deadline):
                while not open_batch.is_commit_due(self._settings) and not open_batch.is_idle:
                    open_batch.changed.clear()
                    await open_batch.changed.wait()
        except TimeoutError:
            return
        finally:
            open_batch.batching = None

    def _take_for_commit(self) -> list[ResultLine]:
        """Take the results of the next commit, up to its bounds on lines and bytes."""
        open_batch, settings = self._open_batch, self._settings
        size = 0
        count = 0
        for entry in open_batch.results[: settings.lines_max]:
            if count and size + len(entry.line) > settings.bytes_max:
                break
            size += len(entry.line)
            count += 1
        taken, open_batch.results = open_batch.results[:count], open_batch.results[count:]
        open_batch.results_bytes -= size
        open_batch.budget.lines_committing += count
        return taken

    async def _commit(self, results: list[ResultLine]) -> None:
        live = [entry for entry in results if entry.shard.state is not LOST]
        self._context.observer.on_lines_repeated(len(results) - len(live))
        if live:
            await self._record(live)
        # Not before the commit: room made earlier would let more lines be sent, and a crash would
        # repeat those as well.
        self._open_batch.budget.release(len(results), sum([len(entry.line) for entry in results]))

    async def _record(self, results: list[ResultLine]) -> None:
        context = self._context
        started = asyncio.get_running_loop().time()
        groups = _grouped(results)
        segment = context.ids.make("seg_")
        writer, parts = await self._write_again_if_lost(groups, segment)
        commit = Commit(
            segment_id=segment,
            batch_id=self._open_batch.id,
            shards=tuple(_shard_commits(groups, parts)),
            at=context.clock.now(),
            writer=writer,
        )
        verdicts = await self._gate.retry_until_answered(lambda: context.store.commit(commit))
        context.observer.on_commit(len(results), asyncio.get_running_loop().time() - started)
        shards = {entry.shard.number: entry.shard for entry in results}
        for part, verdict in zip(commit.shards, verdicts, strict=True):
            self._apply_verdict(shards[part.number], part, verdict)
        refused = [
            shards[part.number].claim
            for part, verdict in zip(commit.shards, verdicts, strict=True)
            if verdict is not Verdict.ACCEPTED
        ]
        if refused:
            # If only our writer was fenced, we still hold the claims; an expired claim would count
            # as a crash. The ledger ignores claims that another processor holds by now.
            await self._gate.retry_until_answered(lambda: context.store.hand_back(refused))
        if Verdict.ACCEPTED not in verdicts:
            # A collector may have fenced our writer while we held no claim: begin a new one.
            self._writer = None

    async def _ensure_writer(self) -> str:
        """Return the name of a writer that the ledger knows; begin one if needed (PROTOCOL 18)."""
        context = self._context
        if self._writer is None:
            writer, at = context.ids.make("writer_"), context.clock.now()
            await self._gate.retry_until_answered(
                lambda: context.store.begin_writer(
                    writer, batch_id=self._open_batch.id, owner=context.owner, at=at
                )
            )
            self._writer = writer
            self._blob_ends.clear()
        return self._writer

    async def _write_again_if_lost(
        self, groups: list[Group], segment: str
    ) -> tuple[str, list[Part]]:
        """Make the lines durable; return the writer and one part for each group.

        If a blob of the writer is gone, begin a new writer: under the old name, new bytes would be
        at offsets to which the ledger already points. The collector repairs what was lost.
        """
        while True:
            writer = await self._ensure_writer()
            try:
                return writer, await self._write(groups, writer, segment)
            except BlobMissing:
                assert self._blob_ends, "a blob that was never written can't be lost"
                self._writer = None

    async def _write(self, groups: list[Group], writer: str, segment: str) -> list[Part]:
        """Make the lines durable; return one part for each group.

        Raises:
            BlobMissing: a blob of this writer vanished.
        """
        blobs = self._context.blobs
        if not blobs.appends:
            name = ResultBlob(batch_id=self._open_batch.id, writer=writer, label=segment).name
            data = _joined(groups)
            await self._gate.retry_until_answered(lambda: blobs.put(name, data))
            return _slices(groups, name, 0)
        parts: list[Part] = []
        for is_error, some in groupby(groups, key=lambda group: group[0].is_error):
            chosen = list(some)
            label = "errors" if is_error else "results"
            name = ResultBlob(batch_id=self._open_batch.id, writer=writer, label=label).name
            offset = await self._append(name, _joined(chosen))
            parts += _slices(chosen, name, offset)
        return parts

    async def _append(self, name: str, data: bytes) -> int:
        blobs, after = self._context.blobs, self._blob_ends.get(name, 0)
        offset = await self._gate.retry_until_answered(
            lambda: blobs.append(name, data, after=after)
        )
        self._blob_ends[name] = offset + len(data)
        return offset

    def _apply_verdict(self, shard: OpenShard, part: ShardCommit, verdict: Verdict) -> None:
        """Record the ledger's answer for one shard."""
        if verdict is not Verdict.ACCEPTED:
            self._context.observer.on_claim_lost("shard")
            self._context.observer.on_lines_repeated(len(part.indexes))
            self._close(shard, LOST)
            return
        shard.sequence += 1
        shard.uncommitted -= len(part.indexes)
        assert shard.uncommitted >= 0, shard.number
        self._context.observer.on_lines_done(
            shard.model, part.tally.completed, part.tally.failed, part.tally.usage
        )
        if not shard.undecided and not shard.uncommitted:
            self._close(shard, CLOSED)
        elif shard.state is RETURNING and shard.returns_at_once:
            self._wakeups.work_available.set()

    def _close(self, shard: OpenShard, state: OpenShardState) -> None:
        self._open_batch.close(shard, state)
        self._on_closed(shard)


class Committers:
    """Runs a committer for each open batch, in the group `tasks`, which the service enters."""

    def __init__(
        self,
        context: ProcessorContext,
        open_batches: OpenBatches,
        renewer: LeaseRenewer,
        gate: WriteGate,
        wakeups: Wakeups,
    ) -> None:
        self._context = context
        self._open_batches = open_batches
        self._renewer = renewer
        self._gate = gate
        self._wakeups = wakeups
        self.tasks = asyncio.TaskGroup()

    def start(self, open_batch: OpenBatch) -> None:
        """Start the committer of a batch that was just opened."""
        self.tasks.create_task(self._run(open_batch), name=f"committer {open_batch.id}")

    async def _run(self, open_batch: OpenBatch) -> None:
        await Committer(
            open_batch,
            self._context,
            self._open_batches,
            self._gate,
            self._wakeups,
            on_closed=self._on_closed,
        ).run()
        # A processor that stops waits for its last batch.
        self._wakeups.work_available.set()

    def _on_closed(self, shard: OpenShard) -> None:
        self._renewer.remove(shard.claim)
        open_batch = self._open_batches.by_id.get(shard.claim.unit.batch_id)
        if open_batch is None or not open_batch.shards:
            # Perhaps it was the last of its batch, which can be finalized now.
            self._context.pubsub.publish(WORK)
        self._wakeups.work_available.set()


def _grouped(results: list[ResultLine]) -> list[Group]:
    """Group lines by kind and shard: results first, in the order of shards."""
    found: dict[tuple[bool, int], Group] = {}
    for entry in results:
        key = (entry.is_error, entry.shard.number)
        group = found.get(key)
        if group is None:
            found[key] = [entry]
        else:
            group.append(entry)
    return [found[key] for key in sorted(found)]


def _joined(groups: list[Group]) -> bytes:
    return b"".join([entry.line for group in groups for entry in group])


def _slices(groups: list[Group], name: str, offset: int) -> list[Part]:
    parts = []
    for group in groups:
        length = sum([len(entry.line) for entry in group])
        parts.append(Part(blob=name, offset=offset, length=length))
        offset += length
    return parts


def _shard_commits(groups: list[Group], parts: list[Part]) -> list[ShardCommit]:
    """Return one part of the commit for each shard, with its results, errors, or both."""
    found: dict[int, list[tuple[Group, Part]]] = {}
    for group, part in zip(groups, parts, strict=True):
        found.setdefault(group[0].shard.number, []).append((group, part))
    return [_shard_commit(pairs) for pairs in found.values()]


def _shard_commit(pairs: list[tuple[Group, Part]]) -> ShardCommit:
    results = [entry for group, _ in pairs for entry in group]
    by_kind = {group[0].is_error: part for group, part in pairs}
    shard = results[0].shard
    return ShardCommit(
        number=shard.number,
        epoch=shard.claim.epoch,
        sequence=shard.sequence,
        indexes=tuple([entry.index for entry in results]),
        output=by_kind.get(False),
        errors=by_kind.get(True),
        tally=_tally(results),
    )


def _tally(results: list[ResultLine]) -> Tally:
    """Count what these lines add to the batch."""
    failed = sum([entry.is_error for entry in results])
    return Tally(
        completed=len(results) - failed,
        failed=failed,
        expired=sum([entry.is_expired for entry in results]),
        usage=Usage.of_all([entry.usage for entry in results]),
    )
