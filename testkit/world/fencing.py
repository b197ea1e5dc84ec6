"""Which writers a collector fenced: what it deletes can never be committed; live claims stay.

It records each blob that is fenced for deletion and decides independently which process might still
have made a row point to it (PROTOCOL 18). A ledger that fences a holder with a live claim fails, as
does one that fences no holder that then writes. What a fenced holder had not committed runs again,
whether it dies or not, so it is not counted as repeated by a crash.
"""

from collections.abc import Sequence

from testkit.world.account import Account, WriteGrant
from testkit.world.broken import Broken
from tidegate.domain.blob_names import PlanBlob, ResultBlob, parse
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.ledger.values import Commit, Repair
from tidegate.domain.shard import Verdict
from tidegate.runtime.clock import Clock


class Fencing:
    """Who writes under which name, and whose rights end when such bytes go.

    `clock` is the ledger's.
    """

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account = account
        self._clock = clock
        self._owners: dict[str, str] = {}
        self._fenced: set[str] = set()

    async def after_begin_writer(
        self, _answer: None, writer: str, *, batch_id: str, owner: str, at: float
    ) -> None:
        """Record under which name a processor will write results."""
        assert at > 0.0, at
        assert batch_id, writer
        self._owners.setdefault(writer, owner)

    async def after_fence_and_list_deletable(
        self, answer: Sequence[str], _names: Sequence[str], *, idle_seconds: float
    ) -> None:
        """Record which blobs may be deleted.

        Raises:
            Broken: a process that could still have committed one of them holds a live claim.
        """
        assert idle_seconds >= 0.0, idle_seconds
        for name in answer:
            match parse(name):
                case PlanBlob(batch_id=batch_id, epoch=epoch):
                    self._fence_planner(batch_id, epoch)
                case ResultBlob(batch_id=batch_id, writer=writer):
                    self._fence_writer(batch_id, writer)
                case _:
                    continue

    async def after_repair(self, answer: bool, repair: Repair) -> None:  # noqa: FBT001 - the ledger's own answer
        """Record lost blobs: a writer that writes into them is fenced, though its claims live."""
        lost = {part.blob for one in repair.files for part in one.old if part not in one.new}
        names = [parse(blob) for blob in lost if answer]
        self._fenced |= {name.writer for name in names if isinstance(name, ResultBlob)}

    async def after_commit(self, answer: Sequence[Verdict], commit: Commit) -> None:
        """Record what was refused: the holder of the shard drops it, with all that came back."""
        for part, verdict in zip(commit.shards, answer, strict=True):
            unit = Unit(batch_id=commit.batch_id, kind=Kind.SHARD, number=part.number)
            right = self._account.right(unit)
            if verdict is not Verdict.ACCEPTED and right.epoch == part.epoch:
                right.refused = True

    def _fence_planner(self, batch_id: str, epoch: int) -> None:
        job = self._account.jobs[batch_id]
        unit = Unit(batch_id=batch_id, kind=Kind.PLANNING)
        right = self._account.right(unit)
        if right.epoch == epoch and not (job.shard_of or job.batch.is_terminal):
            self._fence(unit, right)

    def _fence_writer(self, batch_id: str, writer: str) -> None:
        """End the rights that a writer's owner has while the batch has an open shard; only once.

        What the owner claims later it writes under another name.
        """
        account = self._account
        job, recorded = account.jobs[batch_id], account.recorded[batch_id]
        still_open = {number for name, number in job.shard_of.items() if name not in recorded}
        if writer in self._fenced or job.batch.is_terminal or not still_open:
            return
        self._fenced.add(writer)
        owner = self._owners.get(writer, writer)
        for number in sorted(still_open):
            unit = Unit(batch_id=batch_id, kind=Kind.SHARD, number=number)
            right = account.right(unit)
            # What was handed back is nobody's, so that there is nothing to end.
            if right.owner == owner and right.expires_at > 0.0:
                self._fence(unit, right)

    def _fence(self, unit: Unit, right: WriteGrant) -> None:
        now = self._clock.now()
        if not right.fenced and now < right.expires_at:
            raise Broken(f"{unit} was fenced at {now}, though {right} has not expired")
        self._account.check_may_expire(right)
        right.fenced = True
