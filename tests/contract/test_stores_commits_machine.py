"""Every line is recorded once, however late, often or disordered commits come."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from testkit.power.store_machine import LedgerMachine, OnDisk, OnMemory, examples, run
from tidegate.domain import shard
from tidegate.domain.batch import Status
from tidegate.domain.claim import Claim
from tidegate.domain.file import Part, merged
from tidegate.domain.ledger import commits as commit_rules
from tidegate.domain.ledger.values import Commit, ShardCommit, Want
from tidegate.domain.shard import Shard, Tally, Verdict, is_done, judge
from tidegate.stores.base import Store
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract.stores import LEASE, START, TENANT, a_batch, planned
from tidegate.testing.inline_lanes import InlineExecutor

OWNERS = st.sampled_from(["anna", "bert", "cleo"])
SHARD_LINES = 5


@dataclass(frozen=True)
class Message:
    """A commit on its way, and who sent it."""

    commit: Commit
    claim: Claim


class Commits(LedgerMachine):
    """Commits of several holders that come late, again, in any order, or whose answer is lost."""

    @initialize()
    def begin(self) -> None:
        run(planned(self.store, a_batch(), shards=[("m", SHARD_LINES), ("m", SHARD_LINES)]))
        self.claims: list[Claim] = []
        self.sequences: dict[Claim, int] = {}
        self.sent: list[Message] = []
        self.recorded: dict[tuple[int, int], str] = {}
        self.slices: list[Part] = []
        self.latest: dict[int, str] = {}
        self.take("anna")
        self.take("bert")

    @rule(owner=OWNERS)
    def take(self, owner: str) -> None:
        wants = [Want(batch_id="batch_1", model="m", limit=1)]
        for claimed in run(self.store.claim_shards(owner, wants, lease_seconds=LEASE)):
            for one in claimed.shards:
                self.claims.append(one.claim)
                self.sequences[one.claim] = one.shard.sequence
                done = {index for index in range(SHARD_LINES) if is_done(one.shard.done, index)}
                assert done == self.done(one.shard.plan.number), "the bits are not the lines"

    def segments_of(self, number: int) -> set[str]:
        return {segment for (shard, _), segment in self.recorded.items() if shard == number}

    def done(self, number: int) -> set[int]:
        return {index for shard, index in self.recorded if shard == number}

    @rule(data=st.data(), is_honest=st.booleans(), is_delivered=st.booleans())
    def send(self, data: st.DataObject, is_honest: bool, is_delivered: bool) -> None:  # noqa: FBT001 -- Hypothesis passes by name
        """Send what is undone, or any lines at all, also such as were sent before."""
        claim = data.draw(st.sampled_from(self.claims[-3:]))
        done = self.done(claim.unit.number) if is_honest else set()
        choices = [index for index in range(SHARD_LINES) if index not in done]
        if not choices:
            return
        indexes = data.draw(st.sets(st.sampled_from(choices), min_size=1, max_size=3))
        failed = data.draw(st.integers(0, 1))
        blob = f"results/{self.segments // 2}"
        part = ShardCommit(
            number=claim.unit.number,
            epoch=claim.epoch,
            sequence=self.sequences[claim],
            indexes=tuple(sorted(indexes)),
            output=Part(blob=blob, offset=self.segments * 100, length=len(indexes)),
            errors=None,
            tally=Tally(completed=len(indexes) - failed, failed=failed),
        )
        message = Message(self.commit("batch_1", part), claim)
        self.sent.append(message)
        if is_delivered:
            self.hear(message, is_heard=data.draw(st.booleans()))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), is_heard=st.booleans())
    def deliver(self, data: st.DataObject, is_heard: bool) -> None:  # noqa: FBT001 -- Hypothesis passes by name
        """Let the ledger see a commit, for the first time or again; its answer may get lost."""
        self.hear(data.draw(st.sampled_from(self.sent[-6:])), is_heard=is_heard)

    def hear(self, message: Message, *, is_heard: bool) -> None:
        commit, (part,) = message.commit, message.commit.shards
        keys = {(part.number, index) for index in part.indexes}
        before = {self.recorded.get(key) for key in keys}
        (verdict,) = run(self.store.commit(commit))
        if verdict is Verdict.ACCEPTED and before != {commit.segment_id}:
            assert before == {None}, "a line was recorded twice"
            assert part.sequence == len(self.segments_of(part.number)), "it does not follow"
            self.recorded |= dict.fromkeys(keys, commit.segment_id)
            assert part.output is not None
            self.slices.append(part.output)
            self.latest[part.number] = commit.segment_id
        elif self.latest.get(part.number) == commit.segment_id:
            assert verdict is Verdict.ACCEPTED, "a repeat did not get the first answer"
        if verdict is Verdict.ACCEPTED and is_heard:
            self.sequences[message.claim] = part.sequence + 1
        if verdict is Verdict.REPEATED_LINE:
            assert before != {None}, "a fresh line was refused as a repeated one"

    @invariant()
    def counts_bits_and_parts_agree(self) -> None:
        batch = run(self.store.get_batch(TENANT, "batch_1"))
        assert batch.counts.completed + batch.counts.failed == len(self.recorded)
        assert batch.output_bytes == len(self.recorded)
        if self.recorded:
            assert batch.output_file_id is not None
            file, parts = run(self.store.get_parts(TENANT, batch.output_file_id))
            assert file.bytes == len(self.recorded)
            assert list(parts) == merged(self.slices), "not in the order of the commits"
        is_over = len(self.recorded) == 2 * SHARD_LINES
        assert batch.status is (Status.FINALIZING if is_over else Status.IN_PROGRESS)
        assert batch.created_at == START


class CommitsInMemory(Commits, OnMemory):
    pass


class CommitsOnSqlite(Commits, OnDisk):
    @override
    def make_store(self, path: Path, vfs: str) -> Store:
        return SqliteStore(path, self.clock, InlineExecutor(), vfs=vfs)


def any_sequence(
    shard: Shard, *, epoch: int, sequence: int, segment_id: str, indexes: tuple[int, ...]
) -> Verdict:
    return judge(
        shard, epoch=epoch, sequence=shard.sequence, segment_id=segment_id, indexes=indexes
    )


def any_segment(
    shard: Shard, *, epoch: int, sequence: int, segment_id: str, indexes: tuple[int, ...]
) -> Verdict:
    return judge(shard, epoch=epoch, sequence=sequence, segment_id="", indexes=indexes)


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        pytest.param(commit_rules, "judge", any_sequence, id="sequences do not fence"),
        pytest.param(commit_rules, "judge", any_segment, id="repeats are not known"),
        pytest.param(shard, "any_done", lambda *_: False, id="no bits are read"),
    ],
)
def test_a_ledger_that_records_what_it_should_not_is_found(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, wrong: object
) -> None:
    monkeypatch.setattr(module, name, wrong)
    wide = settings(examples(600), phases=[Phase.generate], derandomize=True)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(CommitsInMemory, settings=wide)


TestCommitsInMemory = CommitsInMemory.TestCase
TestCommitsInMemory.settings = examples(60)
TestCommitsOnSqlite = CommitsOnSqlite.TestCase
TestCommitsOnSqlite.settings = examples(40)
