"""At most one holder may write for a unit, after any calls in any order."""

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from testkit.power.store_machine import LedgerMachine, OnDisk, OnMemory, examples, run
from tidegate.domain.blob_names import ResultBlob
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.errors import ClaimLost
from tidegate.domain.ledger import (
    claims as claim_rules,
    commits as commit_rules,
    garbage as garbage_rules,
)
from tidegate.domain.ledger.claims import taken
from tidegate.domain.ledger.values import ShardCommit, Want
from tidegate.domain.shard import Shard, Tally, Verdict, judge
from tidegate.stores.base import Store
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract.stores import LEASE, TENANT, a_batch, a_plan, planned
from tidegate.testing.inline_lanes import InlineExecutor

OWNERS = st.sampled_from(["anna", "bert", "cleo"])
LINES = 3
BATCHES = ["batch_1", "batch_2"]
UNPLANNED = "batch_3"


@dataclass
class Hold:
    """What the machine knows of a unit: the latest claim, from when another may follow it."""

    claim: Claim | None = None
    epoch: int = 0
    free_at: float = 0.0
    kept: bool = False
    ended: bool = False


class Claims(LedgerMachine):
    """Claim, renew, hand back, let expire, and write under any claim that was ever given."""

    @initialize()
    def begin(self) -> None:
        self.claims: list[Claim] = []
        self.units: dict[Unit, Hold] = {}
        self.written: dict[tuple[Unit, int], int] = {}
        self.writers: dict[tuple[str, str], str] = {}
        self.fenced: set[str] = set()
        for batch_id in BATCHES:
            run(planned(self.store, a_batch(batch_id), shards=[("m", LINES), ("m", LINES)]))
            for number in range(2):
                self.units[Unit(batch_id=batch_id, kind=Kind.SHARD, number=number)] = Hold()
        run(self.store.create_batch(a_batch(UNPLANNED)))
        self.units[Unit(batch_id=UNPLANNED, kind=Kind.PLANNING)] = Hold()

    def took(self, claim: Claim, owner: str) -> None:
        hold, now = self.units[claim.unit], self.clock.now()
        assert not hold.ended, "an ended unit was claimed"
        assert hold.free_at <= now, "somebody holds it still"
        assert claim.epoch == hold.epoch + 1
        assert (claim.owner, claim.expires_at) == (owner, now + LEASE)
        self.units[claim.unit] = Hold(claim, claim.epoch, claim.expires_at, kept=True)
        self.claims.append(claim)

    def free(self, batch_id: str) -> set[Unit]:
        return {
            unit
            for unit, hold in self.units.items()
            if unit.batch_id == batch_id
            and unit.kind is Kind.SHARD
            and not hold.ended
            and hold.free_at <= self.clock.now()
        }

    @rule(owner=OWNERS, batch_id=st.sampled_from(BATCHES), limit=st.integers(1, 3))
    def claim_shards(self, owner: str, batch_id: str, limit: int) -> None:
        free = self.free(batch_id)
        wants = [Want(batch_id=batch_id, model="m", limit=limit)]
        granted = run(self.store.claim_shards(owner, wants, lease_seconds=LEASE))
        claims = [one.claim for claimed in granted for one in claimed.shards]
        assert {claim.unit for claim in claims} == set(sorted(free)[:limit])
        for claim in claims:
            self.took(claim, owner)

    @rule(owner=OWNERS)
    def claim_planning(self, owner: str) -> None:
        claimed = run(self.store.claim_planning(owner, lease_seconds=LEASE))
        if claimed is not None:
            self.took(claimed.claim, owner)

    @rule(owner=OWNERS)
    def claim_finalizing(self, owner: str) -> None:
        claimed = run(self.store.claim_finalizing(owner, lease_seconds=LEASE))
        if claimed is not None:
            self.took(claimed.claim, owner)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claims = data.draw(st.lists(st.sampled_from(self.claims), unique=True, max_size=4))
        lost = run(self.store.renew(claims, lease_seconds=LEASE))
        for claim in claims:
            hold = self.units[claim.unit]
            is_kept = hold.kept and hold.claim == claim and not hold.ended
            assert is_kept or claim.unit in lost, "a claim was renewed that somebody else has"
            if is_kept:
                hold.free_at = self.clock.now() + LEASE
        assert len(lost) == len(
            [c for c in claims if not (self.units[c.unit].kept and self.units[c.unit].claim == c)]
        )

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), wait=st.sampled_from([0.0, 5.0]))
    def hand_back(self, data: st.DataObject, wait: float) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        run(self.store.hand_back([claim], wait_seconds=wait))
        hold = self.units[claim.unit]
        if hold.kept and hold.claim == claim:
            hold.kept, hold.free_at = False, self.clock.now() + wait

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Only the latest claim of a unit may write, whether it has expired or not."""
        claim = data.draw(st.sampled_from(self.claims))
        match claim.unit.kind:
            case Kind.SHARD:
                self.write_lines(claim, data)
            case Kind.PLANNING:
                plan = a_plan(UNPLANNED, [("m", LINES)])
                self.end(claim, self.store.plan_batch(claim, plan, at=self.clock.now()))
            case Kind.FINALIZING:
                self.end(claim, self.store.finish_batch(claim, at=self.clock.now()))

    def writer(self, batch_id: str, owner: str) -> str:
        """Return the writer under which a process writes; it begins a new one after a fence."""
        name = self.writers.get((batch_id, owner), "")
        if not name or name in self.fenced:
            name = f"{owner}-{len(self.fenced)}-{batch_id}"
            self.writers[batch_id, owner] = name
            begun = self.store.begin_writer(
                name, batch_id=batch_id, owner=owner, at=self.clock.now()
            )
            run(begun)
        return name

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def sweep(self, data: st.DataObject) -> None:
        """Let a collector take a blob that was written and never committed."""
        batch_id, owner = data.draw(st.sampled_from(sorted(self.writers)))
        name = self.writers[batch_id, owner]
        blob = ResultBlob(batch_id=batch_id, writer=name, label="uncommitted").name
        gone = run(self.store.fence_and_list_deletable([blob], idle_seconds=0))
        holds = [self.units[unit] for unit in self.shards(batch_id)]
        held = [
            hold
            for hold in holds
            if hold.kept and not hold.ended and hold.claim is not None and hold.claim.owner == owner
        ]
        is_run = all(hold.ended for hold in holds)
        is_busy = any(hold.free_at > self.clock.now() for hold in held)
        assert gone == ([blob] if is_run or name in self.fenced or not is_busy else [])
        if gone and not is_run and name not in self.fenced:
            self.fenced.add(name)
            for hold in held:
                hold.epoch, hold.kept, hold.free_at = hold.epoch + 1, False, 0.0

    def write_lines(self, claim: Claim, data: st.DataObject) -> None:
        unit, hold = claim.unit, self.units[claim.unit]
        done = sum(key == unit for key, _ in self.written)
        part = ShardCommit(
            number=unit.number,
            epoch=claim.epoch,
            sequence=done,
            indexes=(min(done, LINES - 1),),
            output=None,
            errors=None,
            tally=Tally(completed=1),
        )
        writer = self.writer(unit.batch_id, claim.owner)
        writer = data.draw(st.sampled_from([writer, *sorted(self.fenced)]))
        (verdict,) = run(self.store.commit(self.commit(unit.batch_id, part, writer=writer)))
        if claim.epoch != hold.epoch or writer in self.fenced:
            assert verdict is Verdict.STALE, "a stale holder wrote"
        elif hold.ended:
            assert verdict is Verdict.ENDED
        else:
            assert verdict is Verdict.ACCEPTED
            self.written[unit, done] = claim.epoch
            hold.ended = done + 1 == LINES
            hold.kept = hold.kept and not hold.ended
            if all(self.units[other].ended for other in self.shards(unit.batch_id)):
                self.units[Unit(batch_id=unit.batch_id, kind=Kind.FINALIZING)] = Hold()

    def shards(self, batch_id: str) -> list[Unit]:
        return [u for u in self.units if u.batch_id == batch_id and u.kind is Kind.SHARD]

    def end(self, claim: Claim, call: Coroutine[object, object, object]) -> None:
        hold = self.units[claim.unit]
        try:
            run(call)
        except ClaimLost:
            assert claim.epoch != hold.epoch, "the holder may not write"
        else:
            assert claim.epoch == hold.epoch, "a stale holder wrote"
            hold.ended, hold.kept = True, False

    @invariant()
    def lines_are_written_under_epochs_that_only_grow(self) -> None:
        for unit in self.units:
            epochs = [epoch for (key, _), epoch in self.written.items() if key == unit]
            assert epochs == sorted(epochs)

    @invariant()
    def the_books_tell_what_was_written(self) -> None:
        for batch_id in BATCHES:
            batch = run(self.store.get_batch(TENANT, batch_id))
            lines = sum(unit.batch_id == batch_id for unit, _ in self.written)
            assert batch.counts.completed == lines
            assert batch.is_terminal == self.is_closed(batch_id)

    def is_closed(self, batch_id: str) -> bool:
        hold = self.units.get(Unit(batch_id=batch_id, kind=Kind.FINALIZING))
        return hold is not None and hold.ended


class ClaimsInMemory(Claims, OnMemory):
    pass


class ClaimsOnSqlite(Claims, OnDisk):
    @override
    def make_store(self, path: Path, vfs: str) -> Store:
        return SqliteStore(path, self.clock, InlineExecutor(), vfs=vfs)


def any_epoch(
    shard: Shard, *, epoch: int, sequence: int, segment_id: str, indexes: tuple[int, ...]
) -> Verdict:
    return judge(
        shard, epoch=shard.epoch, sequence=sequence, segment_id=segment_id, indexes=indexes
    )


def same_epoch(hold: claim_rules.Hold, owner: str, expires_at: float) -> claim_rules.Hold:
    return replace(taken(hold, owner, expires_at), epoch=max(1, hold.epoch))


def kept_by_anybody(hold: claim_rules.Hold | None, claim: Claim) -> bool:
    return hold is not None and not hold.ended


def before_it_expires(hold: claim_rules.Hold, now: float, *, ending: bool) -> bool:
    return not hold.ended


def never_stays(claims: Iterable[claim_rules.Hold], now: float) -> garbage_rules.Fate:
    return garbage_rules.Fate.FENCE


def same_hold(hold: claim_rules.Hold) -> claim_rules.Hold:
    return hold


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        pytest.param(commit_rules, "judge", any_epoch, id="epochs do not fence"),
        pytest.param(claim_rules, "taken", same_epoch, id="epochs do not grow"),
        pytest.param(claim_rules, "is_kept", kept_by_anybody, id="anybody renews"),
        pytest.param(
            garbage_rules, "writer_fate", never_stays, id="a collector fences whom it likes"
        ),
        pytest.param(claim_rules, "fenced", same_hold, id="a fence raises no epoch"),
        pytest.param(claim_rules, "is_claimable", before_it_expires, id="claims do not last"),
    ],
)
def test_a_ledger_that_lets_others_write_is_found(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, wrong: object
) -> None:
    monkeypatch.setattr(module, name, wrong)
    wide = settings(examples(600), phases=[Phase.generate], derandomize=True)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ClaimsInMemory, settings=wide)


TestClaimsInMemory = ClaimsInMemory.TestCase
TestClaimsInMemory.settings = examples(60)
TestClaimsOnSqlite = ClaimsOnSqlite.TestCase
TestClaimsOnSqlite.settings = examples(40)
