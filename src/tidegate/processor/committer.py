"""What came back becomes true: bytes first, ledger second (PROTOCOL 8 to 11)."""

import asyncio
from collections.abc import Callable
from itertools import groupby
from types import TracebackType

from tidegate.domain.blob_names import ResultBlob
from tidegate.domain.errors import BlobMissing
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import Commit, ShardCommit
from tidegate.domain.shard import Tally, Verdict
from tidegate.domain.usage import Usage
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batch import OpenBatch, ResultLine
from tidegate.processor.dispatch.open_batches import OpenBatches
from tidegate.processor.dispatch.open_shard import (
    CLOSED,
    LOST,
    RETURNING,
    OpenShard,
    OpenShardState,
)
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.retrying import retry_until_answered
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.pubsub.base import WORK

# Entries of one shard that are all results, or all errors: never empty.
Group = list[ResultLine]


class Committer:
    """Commits the results of one batch, one commit at a time, until nothing of it is open here.

    `on_closed` is called with each shard that this processor need not hold any longer.
    """

    def __init__(
        self,
        run: OpenBatch,
        context: ProcessorContext,
        open_batches: OpenBatches,
        gate: WriteGate,
        wakeups: Wakeups,
        *,
        on_closed: Callable[[OpenShard], None],
    ) -> None:
        self._run = run
        self._context = context
        self._open_batches = open_batches
        self._gate = gate
        self._wakeups = wakeups
        self._on_closed = on_closed
        self._settings = settings = context.settings.commits
        appends = context.blobs.appends
        self._interval = settings.append_seconds if appends else settings.put_seconds
        self._writer: str | None = None
        self._ends: dict[str, int] = {}  # of its blobs: the end of the acknowledged bytes

    async def run(self) -> None:
        """Commit until the batch has no open shard and no uncommitted result here."""
        run = self._run
        while run.shards or run.entries:
            await self._due()
            entries = self._cut()
            if entries:
                await self._commit(entries)
        self._open_batches.drop(run)

    async def _due(self) -> None:
        """Wait until there is something to commit and a reason to do it now (PROTOCOL 11)."""
        run = self._run
        while not run.entries and run.shards:
            run.changed.clear()
            await run.changed.wait()
        run.batching = self._settings
        deadline = asyncio.get_running_loop().time() + self._interval
        try:
            async with asyncio.timeout_at(deadline):
                while not run.is_commit_due(self._settings) and not run.is_idle:
                    run.changed.clear()
                    await run.changed.wait()
        except TimeoutError:
            return
        finally:
            run.batching = None

    def _cut(self) -> list[ResultLine]:
        """Take the entries of the next commit off the run: at most so many lines and bytes."""
        run, settings = self._run, self._settings
        size = 0
        count = 0
        for entry in run.entries[: settings.lines_max]:
            if count and size + len(entry.line) > settings.bytes_max:
                break
            size += len(entry.line)
            count += 1
        taken, run.entries = run.entries[:count], run.entries[count:]
        run.entries_bytes -= size
        run.budget.lines_cut += count
        return taken

    async def _commit(self, entries: list[ResultLine]) -> None:
        live = [entry for entry in entries if entry.shard.state is not LOST]
        self._context.observer.on_lines_repeated(len(entries) - len(live))
        if live:
            await self._record(live)
        # Only now: were room made for others where it was cut off, a processor that is ending would
        # send them, and a crash would repeat them as well.
        self._run.budget.committed(len(entries), sum([len(entry.line) for entry in entries]))

    async def _record(self, entries: list[ResultLine]) -> None:
        context = self._context
        started = asyncio.get_running_loop().time()
        groups = _grouped(entries)
        segment = context.ids.make("seg_")
        writer, parts = await self._write_again_if_lost(groups, segment)
        commit = Commit(
            segment_id=segment,
            batch_id=self._run.id,
            shards=tuple(_shard_commits(groups, parts)),
            at=context.clock.now(),
            writer=writer,
        )
        verdicts = await retry_until_answered(
            lambda: context.store.commit(commit), context.rng, self._gate
        )
        context.observer.on_commit(len(entries), asyncio.get_running_loop().time() - started)
        shards = {entry.shard.number: entry.shard for entry in entries}
        for part, verdict in zip(commit.shards, verdicts, strict=True):
            self._hear(shards[part.number], part, verdict)
        refused = [
            shards[part.number].claim
            for part, verdict in zip(commit.shards, verdicts, strict=True)
            if verdict is not Verdict.ACCEPTED
        ]
        if refused:
            # Where our writer alone was fenced they are ours still, and left to expire they would
            # count as lost by a crash. What is another's by now is passed over.
            await retry_until_answered(
                lambda: context.store.hand_back(refused), context.rng, self._gate
            )
        if Verdict.ACCEPTED not in verdicts:
            # Perhaps a collector fenced our writer, while nothing here was claimed: begin anew.
            self._writer = None

    async def _begun(self) -> str:
        """Return the name under which this run writes, known to the ledger (PROTOCOL 18)."""
        context = self._context
        if self._writer is None:
            writer, at = context.ids.make("writer_"), context.clock.now()
            await retry_until_answered(
                lambda: context.store.begin_writer(
                    writer, batch_id=self._run.id, owner=context.owner, at=at
                ),
                context.rng,
                self._gate,
            )
            self._writer = writer
            self._ends.clear()
        return self._writer

    async def _write_again_if_lost(
        self, groups: list[Group], segment: str
    ) -> tuple[str, list[Part]]:
        """Make the lines durable; return the writer and one slice for each group.

        If a blob of the writer is gone, a new writer begins: under the old name new bytes would lie
        at offsets that the ledger already points to. The collector repairs what was lost.
        """
        while True:
            writer = await self._begun()
            try:
                return writer, await self._write(groups, writer, segment)
            except BlobMissing:
                assert self._ends, "a blob that was never written can't be lost"
                self._writer = None

    async def _write(self, groups: list[Group], writer: str, segment: str) -> list[Part]:
        """Make the lines durable; return one slice for each group.

        Raises:
            BlobMissing: a blob of this writer vanished.
        """
        context, blobs = self._context, self._context.blobs
        if not blobs.appends:
            name = ResultBlob(batch_id=self._run.id, writer=writer, label=segment).name
            data = _joined(groups)
            await retry_until_answered(lambda: blobs.put(name, data), context.rng, self._gate)
            return _slices(groups, name, 0)
        parts: list[Part] = []
        for is_error, some in groupby(groups, key=lambda group: group[0].is_error):
            chosen = list(some)
            label = "errors" if is_error else "results"
            name = ResultBlob(batch_id=self._run.id, writer=writer, label=label).name
            offset = await self._append(name, _joined(chosen))
            parts += _slices(chosen, name, offset)
        return parts

    async def _append(self, name: str, data: bytes) -> int:
        blobs, after = self._context.blobs, self._ends.get(name, 0)
        offset = await retry_until_answered(
            lambda: blobs.append(name, data, after=after), self._context.rng, self._gate
        )
        self._ends[name] = offset + len(data)
        return offset

    def _hear(self, shard: OpenShard, part: ShardCommit, verdict: Verdict) -> None:
        """Act on the ledger's answer for one shard."""
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
        self._run.close(shard, state)
        self._on_closed(shard)


class Committers:
    """The committers of all open batches: one each, which ends when nothing of its batch is open.

    Entered by the service; it is left once all of them have ended.
    """

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
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> None:
        await self._tasks.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(kind, error, trace)

    def start(self, run: OpenBatch) -> None:
        """Start the committer of a batch that was just opened."""
        self._tasks.create_task(self._run(run), name=f"committer {run.id}")

    async def _run(self, run: OpenBatch) -> None:
        await Committer(
            run,
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
        run = self._open_batches.runs.get(shard.claim.unit.batch_id)
        if run is None or not run.shards:
            # Perhaps it was the last of its batch, which can be finalized now.
            self._context.pubsub.publish(WORK)
        self._wakeups.work_available.set()


def _grouped(entries: list[ResultLine]) -> list[Group]:
    """Let lines of one kind of one shard lie together: results first, in the order of shards."""
    found: dict[tuple[bool, int], Group] = {}
    for entry in entries:
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
    """Join what there is of each shard: results, errors, or both."""
    found: dict[int, list[tuple[Group, Part]]] = {}
    for group, part in zip(groups, parts, strict=True):
        found.setdefault(group[0].shard.number, []).append((group, part))
    return [_shard_commit(pairs) for pairs in found.values()]


def _shard_commit(pairs: list[tuple[Group, Part]]) -> ShardCommit:
    entries = [entry for group, _ in pairs for entry in group]
    by_kind = {group[0].is_error: part for group, part in pairs}
    shard = entries[0].shard
    return ShardCommit(
        number=shard.number,
        epoch=shard.claim.epoch,
        sequence=shard.sequence,
        indexes=tuple([entry.index for entry in entries]),
        output=by_kind.get(False),
        errors=by_kind.get(True),
        tally=_tally(entries),
    )


def _tally(entries: list[ResultLine]) -> Tally:
    """Count what these lines add to the batch."""
    failed = sum([entry.is_error for entry in entries])
    return Tally(
        completed=len(entries) - failed,
        failed=failed,
        expired=sum([entry.is_expired for entry in entries]),
        usage=Usage.of_all([entry.usage for entry in entries]),
    )
