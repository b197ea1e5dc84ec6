"""Deliberate breaks: for each rule of the protocol, what the product would be without it.

A simulation that never fails proves nothing. Each break takes one guard away by replacing one
function of the product; with it some seed must fail soon (`./run simulate --break NAME`).
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from tidegate.application import files as upload
from tidegate.application.context import Application
from tidegate.collector import service as collector
from tidegate.collector.orphans import FinalizeOrphans
from tidegate.domain import batch as batches, shard as shards
from tidegate.domain.batch import Batch, Status
from tidegate.domain.claim import Claim, Kind
from tidegate.domain.errors import StorageBroken, StorageFull, StoreUnavailable, TidegateError
from tidegate.domain.file import Part
from tidegate.domain.ledger import (
    batches as batch_rules,
    claims as claim_rules,
    commits as commit_rules,
    garbage as garbage_rules,
    repair as repair_rules,
)
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.garbage import Fate
from tidegate.domain.ledger.values import ClaimedBatch, ShardRepair
from tidegate.domain.shard import Shard, Verdict
from tidegate.endpoints import endpoint
from tidegate.processor import committer
from tidegate.processor.batches import deadlines
from tidegate.processor.dispatch import open_batch, open_shard, settle
from tidegate.processor.leases import opener, renewer
from tidegate.processor.write_gate import WriteGate
from tidegate.sorting import external_sort
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.stores.memory.tables import Entry

T = TypeVar("T")


class Patches:
    """Replacements of functions that are taken back in the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def put(self, owner: object, name: str, value: object) -> None:
        """Replace an attribute of a module or class until `undo`."""
        before: object = getattr(owner, name)
        setattr(owner, name, value)
        self._stack.callback(setattr, owner, name, before)

    def undo(self) -> None:
        """Take every replacement back, the latest first."""
        self._stack.close()


@dataclass(frozen=True, slots=True)
class Break:
    """One guard taken away. `what` says in words what the product does without it.

    `first` is a seed from which a search need not go far: where few worlds can show the failure.
    """

    name: str
    rule: int
    what: str
    apply: Callable[[Patches], None]
    first: int = 0


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Run the block with one guard taken away.

    Raises:
        KeyError: there is no such break.
    """
    patches = Patches()
    BREAKS[name].apply(patches)
    try:
        yield
    finally:
        patches.undo()


# Claims


def _any_epoch(patches: Patches) -> None:
    def judge(
        shard: Shard, *, epoch: int, sequence: int, segment_id: str, indexes: tuple[int, ...]
    ) -> Verdict:
        return shards.judge(
            shard, epoch=shard.epoch, sequence=sequence, segment_id=segment_id, indexes=indexes
        )

    patches.put(commit_rules, "judge", judge)


def _hasty_clock(patches: Patches) -> None:
    def is_live(hold: Hold, now: float) -> bool:
        return not hold.ended and now + 5.0 < hold.expires_at

    patches.put(claim_rules, "is_live", is_live)


def _held_without_part(patches: Patches) -> None:
    patches.put(endpoint.Endpoint, "has_part", property(lambda _: True))


# Planning


def _any_planner(patches: Patches) -> None:
    def check(_hold: Hold, _claim: Claim) -> None:
        return

    patches.put(claim_rules, "check_epoch", check)


def _input_not_held(patches: Patches) -> None:
    get_input = MemoryStore.get_input

    async def only_visible(self: MemoryStore, batch_id: str) -> tuple[Part, ...] | None:
        parts = await get_input(self, batch_id)
        entry = self._files.get(self._jobs[batch_id].batch.input_file_id)
        return None if entry is None or entry.deleted else parts

    patches.put(MemoryStore, "get_input", only_visible)


# Commits


def _no_bitmap(patches: Patches) -> None:
    def nothing_is_done(_done: bytes, _which: object) -> bool:
        return False

    patches.put(shards, "is_done", nothing_is_done)
    patches.put(shards, "any_done", nothing_is_done)
    patches.put(open_shard, "is_done", nothing_is_done)


def _repeat_refused(patches: Patches) -> None:
    def judge(
        shard: Shard, *, epoch: int, sequence: int, segment_id: str, indexes: tuple[int, ...]
    ) -> Verdict:
        verdict = shards.judge(
            shard, epoch=epoch, sequence=sequence, segment_id=segment_id, indexes=indexes
        )
        return Verdict.ENDED if shard.last_segment == segment_id else verdict

    patches.put(commit_rules, "judge", judge)


def _is_of_committer(ask: Callable[[], object]) -> bool:
    return getattr(ask, "__module__", None) == committer.__name__


def _resent_after_silence(patches: Patches) -> None:
    """Without an answer, take the results for lost, and send their lines again."""
    record = committer.Committer._record

    retry = WriteGate.retry_until_answered

    async def once(self: WriteGate, ask: Callable[[], Awaitable[T]]) -> T:
        return await (ask() if _is_of_committer(ask) else retry(self, ask))

    async def impatient(self: committer.Committer, entries: list[open_batch.ResultLine]) -> None:
        try:
            await record(self, entries)
        except (StoreUnavailable, StorageFull):
            for entry in entries:
                entry.shard.undecided.add(entry.index)
                entry.shard.uncommitted -= 1
                entry.shard.put_back(entry.index)

    patches.put(WriteGate, "retry_until_answered", once)
    patches.put(committer.Committer, "_record", impatient)


def _ledger_first(patches: Patches) -> None:
    """If there is no room for the bytes, write the row all the same."""

    async def append(self: committer.Committer, name: str, data: bytes) -> int:
        try:
            return await self._context.blobs.append(name, data, after=0)
        except StorageFull:
            return 0

    patches.put(committer.Committer, "_append", append)


def _flush_again(patches: Patches) -> None:
    """Take a failed flush for storage that is away for a while."""
    retry = WriteGate.retry_until_answered

    async def stubborn(self: WriteGate, ask: Callable[[], Awaitable[T]]) -> T:
        async def again() -> T:
            try:
                return await ask()
            except StorageBroken as error:
                raise StoreUnavailable(str(error)) from error

        return await retry(self, again)

    patches.put(WriteGate, "retry_until_answered", stubborn)
    patches.put(collector, "StorageFull", TidegateError)


def _never_due(patches: Patches) -> None:
    async def due(self: committer.Committer) -> None:
        while not (
            (open_batch := self._open_batch).is_idle
            or len(open_batch.results) >= self._settings.lines_max
        ):
            open_batch.changed.clear()
            await open_batch.changed.wait()
        while not open_batch.results and open_batch.shards:
            open_batch.changed.clear()
            await open_batch.changed.wait()

    patches.put(committer.Committer, "_wait_until_due", due)


def _parts_in_front(patches: Patches) -> None:
    def append(self: Entry, parts: Iterable[Part]) -> None:
        self.parts[:0] = parts

    patches.put(Entry, "append", append)


# Ends


def _cancel_not_heard(patches: Patches) -> None:
    def watch(_self: deadlines.DeadlineWatcher, _statuses: object) -> None:
        return

    def is_over(_self: opener.ShardOpener, _batch: Batch, _ending: object) -> bool:
        return False

    patches.put(deadlines.DeadlineWatcher, "watch", watch)
    patches.put(opener.ShardOpener, "_is_over", is_over)


def _host_clock(patches: Patches) -> None:
    end_expired = deadlines.DeadlineWatcher._end_expired

    def by_host(self: deadlines.DeadlineWatcher, now: float) -> None:
        self._ledger_clock.record(self._context.clock.now(), asked_at=now, answered_at=now)
        end_expired(self, now)

    patches.put(deadlines.DeadlineWatcher, "_end_expired", by_host)


def _orphans_only_reported(patches: Patches) -> None:
    patches.put(
        collector, "_ROUND", [make for make in collector._ROUND if make is not FinalizeOrphans]
    )


def _finalizing_for_ever(patches: Patches) -> None:
    claim = MemoryStore._claim_oldest

    def claim_once(
        self: MemoryStore, found: Iterable[Batch], kind: Kind, owner: str, lease_seconds: float
    ) -> ClaimedBatch | None:
        def is_new(batch: Batch) -> bool:
            hold = self._jobs[batch.id].finalizing
            return hold is None or hold.epoch == 0

        return claim(self, [b for b in found if is_new(b)], kind, owner, lease_seconds)

    patches.put(MemoryStore, "_claim_oldest", claim_once)


def _always_completed(patches: Patches) -> None:
    def close(batch: Batch, at: float) -> Batch:
        cancelling = batch.status is Status.CANCELLING
        return batches.move(batch, Status.CANCELLED if cancelling else Status.COMPLETED, at)

    patches.put(batch_rules, "close", close)


def _version_stays(patches: Patches) -> None:
    move = batches.move

    def same_version(batch: Batch, status: Status, at: float) -> Batch:
        return replace(move(batch, status, at), version=batch.version)

    patches.put(batches, "move", same_version)
    patches.put(batch_rules, "move", same_version)


def _runs_forgotten(patches: Patches) -> None:
    def sorted_blocks(self: external_sort.ExternalSorter) -> Iterator[list[tuple[bytes, bytes]]]:
        yield sorted(self._buffer)

    patches.put(external_sort.ExternalSorter, "sorted_blocks", sorted_blocks)


def _never_renewed(patches: Patches) -> None:
    async def renew(
        _self: renewer.LeaseRenewer, _store: Store, _claims: list[Claim]
    ) -> list[Claim]:
        return []

    patches.put(renewer.LeaseRenewer, "_renew", renew)


# Garbage


def _not_fenced(patches: Patches) -> None:
    async def abandon(app: Application, _upload_id: str, blob: str) -> None:
        await app.blobs.delete(blob)

    patches.put(upload, "_abandon", abandon)


def _by_age(patches: Patches) -> None:
    def may_go(_self: MemoryStore, _name: str, _idle_since: float) -> bool:
        return True

    patches.put(MemoryStore, "_may_go", may_go)


def _whoever_writes(patches: Patches) -> None:
    def always_fenced(_claims: Iterable[Hold], _now: float) -> Fate:
        return Fate.FENCE

    patches.put(garbage_rules, "writer_fate", always_fenced)


def _bits_stay(patches: Patches) -> None:
    def mended_shard(shard: Shard, repair: ShardRepair) -> Shard:
        return replace(mend(shard, repair), done=shard.done)

    mend = repair_rules.repaired_shard
    patches.put(repair_rules, "repaired_shard", mended_shard)


# Poison


def _no_quarantine(patches: Patches) -> None:
    patches.put(Shard, "is_quarantined", property(lambda _: False))


def _blamed_at_once(patches: Patches) -> None:
    patches.put(settle, "DEATHS_TO_BLAME", 1)


_ALL = (
    Break("01-epoch", 1, "a commit counts under any epoch", _any_epoch),
    Break("02-clock", 2, "another clock, five seconds ahead, judges expiry", _hasty_clock),
    Break("03-renewer", 3, "no claim is renewed", _never_renewed),
    Break(
        "04-part", 4, "shards lie with who may not send their lines", _held_without_part, first=29
    ),
    Break("05-planner", 5, "a replaced planner may still record its plan", _any_planner, first=120),
    Break("06-sort", 6, "sorted runs on scratch are forgotten", _runs_forgotten),
    Break("07-hold", 7, "a batch does not hold its input", _input_not_held),
    Break("08-bitmap", 8, "a line that is done may be recorded again", _no_bitmap),
    Break("08-segment", 8, "the repeat of a segment is refused", _repeat_refused),
    Break(
        "09-silence", 9, "after an unknown outcome the lines are sent again", _resent_after_silence
    ),
    Break(
        "10-bytes", 10, "a row is written although its bytes found no room", _ledger_first, first=14
    ),
    Break("11-due", 11, "no time cuts a commit", _never_due),
    Break("12-order", 12, "new parts come first", _parts_in_front),
    Break("13-flush", 13, "a failed flush is tried again, and ends nothing", _flush_again, 24),
    Break(
        "14-cancel", 14, "processors do not look whether a batch was cancelled", _cancel_not_heard
    ),
    Break("14-host", 14, "a host's clock decides when a window closes", _host_clock, 140),
    Break("14-orphans", 14, "without processors nobody ends a batch", _orphans_only_reported),
    Break("15-books", 15, "a claim on finalizing never passes on", _finalizing_for_ever, first=30),
    Break("16-status", 16, "what has expired is called completed", _always_completed),
    Break("17-version", 17, "a change of status leaves the version", _version_stays),
    Break("18-upload", 18, "the bytes of an upload go before it is fenced", _not_fenced, first=28),
    Break("18-fence", 18, "the collector deletes what no row needs, unfenced", _by_age),
    Break(
        "18-alive", 18, "the collector fences who writes, though its claims live", _whoever_writes
    ),
    Break(
        "19-bits",
        19,
        "a repair leaves the bits of lines whose results are gone",
        _bits_stay,
        first=84,
    ),
    Break("20-alone", 20, "no shard ever comes into quarantine", _no_quarantine, first=9),
    Break("20-blame", 20, "one death of a child process is enough for blame", _blamed_at_once),
)
BREAKS: Mapping[str, Break] = {entry.name: entry for entry in _ALL}
