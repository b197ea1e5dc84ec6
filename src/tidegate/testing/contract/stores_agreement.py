"""Drives two ledgers with the same random calls, for the same answers.

Claims are drawn from all that were ever given, so stale holders, repeats and late calls of every
kind happen often; a call that one ledger refuses the other must refuse in the same words.
"""

# ruff: noqa: D102 -- the rules are the verbs of a ledger, which `Store` documents

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from testkit.power.store_machine import run
from tidegate.domain.batch import Problem
from tidegate.domain.blob_names import PlanBlob, ResultBlob, UploadBlob
from tidegate.domain.claim import Claim, Kind
from tidegate.domain.errors import TidegateError
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import Commit, Plan, ShardCommit, Want
from tidegate.domain.shard import Tally, is_done
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import START, ManualClock, a_batch, a_plan

T = TypeVar("T")

TENANTS = st.sampled_from(["tenant-one", "tenant-two"])
BATCHES = [f"batch_{number}" for number in range(4)]
FILES = [f"file-{number}" for number in range(4)]
ALL_FILES = FILES + [f"file-{batch}-{kind}" for batch in BATCHES for kind in ("output", "error")]
MODELS = ["m", "n"]
LINES = 3
NOBODY = "batch_unknown"


class Agreement(RuleBasedStateMachine):
    """Both ledgers, one clock, and every claim that was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.memory = MemoryStore(self.clock)
        self.other = self.open()
        self.claims: list[Claim] = []
        self.commits: list[Commit] = []
        self.created: set[str] = set()
        self.dropped: set[str] = set()
        self.segments = 0

    @abstractmethod
    def open(self) -> Store:
        """Open the other ledger, with the machine's clock; its calls must never give way."""

    @initialize(models=st.lists(st.sampled_from(MODELS), min_size=1, max_size=3))
    def begin_with_planned_batches(self, models: list[str]) -> None:
        """Start in the middle of life, or few runs would reach its end; one shard is at work."""
        self.upload("file-0", "tenant-one", None, 1)
        for batch_id in BATCHES[:2]:
            self.create_batch(batch_id, "file-0", None, 60, "tenant-one")
            self.claim_planning("anna", ending_only=False)
            plan = plan_of(self.claims[-1], models)
            at = self.clock.now()
            self.both(lambda s, plan=plan, at=at: s.plan_batch(self.claims[-1], plan, at=at))  # type: ignore[misc]  # mypy infers no lambda with a default
        self.claim_shards("bert", [Want(batch_id="batch_1", model=models[0], limit=1)])

    def both(self, call: Callable[[Store], Awaitable[T]]) -> T | None:
        """Return what both ledgers answered, or None where both refused."""
        expected, refused = attempt(call, self.memory)
        found, refused_too = attempt(call, self.other)
        assert refused == refused_too
        assert found == expected
        return expected

    def pick_claim(self, data: st.DataObject, kinds: set[Kind]) -> Claim | None:
        claims = [claim for claim in self.claims if claim.unit.kind in kinds]
        return data.draw(st.sampled_from(claims[-8:])) if claims else None

    @rule(seconds=st.sampled_from([0.5, 5.0, 15.0, 1800.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.turn(seconds)

    @rule(
        file_id=st.sampled_from(FILES),
        tenant=TENANTS,
        lifetime=st.sampled_from([None, 60.0]),
        age=st.integers(0, 1),
    )
    def upload(self, file_id: str, tenant: str, lifetime: float | None, age: int) -> None:
        upload_id = f"upload-{file_id}-{tenant}"
        at = START - age
        file = File(
            id=f"{file_id}-{tenant}" if tenant == "tenant-two" else file_id,
            tenant=tenant,
            filename=file_id,
            purpose=Purpose.BATCH if age else Purpose.VISION,
            bytes=5,
            created_at=at,
            expires_at=None if lifetime is None else self.clock.now() + lifetime,
        )
        blob = UploadBlob(upload_id=upload_id).name
        parts = [Part(blob=blob, offset=0, length=2), Part(blob=blob, offset=2, length=3)]
        self.both(lambda s: s.begin_upload(upload_id, tenant=tenant, blob=blob, at=at))
        self.both(lambda s: s.finish_upload(upload_id, file, parts))

    @rule(file_id=st.sampled_from(FILES), tenant=TENANTS)
    def abandon_upload(self, file_id: str, tenant: str) -> None:
        self.both(lambda s: s.abandon_upload(f"upload-{file_id}-{tenant}"))

    @rule(file_id=st.sampled_from(ALL_FILES), tenant=TENANTS)
    def delete_file(self, file_id: str, tenant: str) -> None:
        self.both(lambda s: s.delete_file(tenant, file_id))

    @rule(
        after=st.none() | st.sampled_from(ALL_FILES),
        limit=st.integers(1, 3),
        ascending=st.booleans(),
        purpose=st.none() | st.sampled_from([Purpose.BATCH, Purpose.BATCH_OUTPUT]),
        tenant=TENANTS,
    )
    def list_files(
        self,
        after: str | None,
        limit: int,
        ascending: bool,  # noqa: FBT001 -- Hypothesis passes by name
        purpose: Purpose | None,
        tenant: str,
    ) -> None:
        self.both(
            lambda s: s.list_files(
                tenant, after=after, limit=limit, ascending=ascending, purpose=purpose
            )
        )

    @rule(
        batch_id=st.sampled_from(BATCHES),
        input_file_id=st.sampled_from(FILES),
        key=st.none() | st.sampled_from(["key-1", "key-2"]),
        output_expires_seconds=st.none() | st.just(60),
        tenant=TENANTS,
    )
    def create_batch(
        self,
        batch_id: str,
        input_file_id: str,
        key: str | None,
        output_expires_seconds: int | None,
        tenant: str,
    ) -> None:
        if batch_id in self.dropped:  # Ids are used once.
            return
        batch = a_batch(
            batch_id,
            tenant=tenant,
            created_at=self.clock.now(),
            input_file_id=input_file_id,
            idempotency_key=key,
            output_expires_seconds=output_expires_seconds,
        )
        if self.both(lambda s: s.create_batch(batch)) == batch:
            self.created.add(batch_id)

    @rule(batch_id=st.sampled_from(BATCHES), tenant=TENANTS)
    def cancel_batch(self, batch_id: str, tenant: str) -> None:
        self.both(lambda s: s.cancel_batch(tenant, batch_id, at=self.clock.now()))

    @rule(batch_id=st.sampled_from([*BATCHES, NOBODY]), reason=st.sampled_from([None, "busy"]))
    def note_waiting(self, batch_id: str, reason: str | None) -> None:
        self.both(lambda s: s.note_waiting(batch_id, reason))

    @rule(after=st.none() | st.sampled_from([*BATCHES, NOBODY]), limit=st.integers(1, 3))
    def list_batches(self, after: str | None, limit: int) -> None:
        self.both(lambda s: s.list_batches("tenant-one", after=after, limit=limit))

    @rule(owner=st.sampled_from(["anna", "bert"]), ending_only=st.booleans())
    def claim_planning(self, owner: str, ending_only: bool) -> None:  # noqa: FBT001 - drawn
        claimed = self.both(
            lambda s: s.claim_planning(owner, lease_seconds=15, ending_only=ending_only)
        )
        if claimed is not None:
            self.claims.append(claimed.claim)

    @rule(owner=st.sampled_from(["anna", "bert"]))
    def claim_finalizing(self, owner: str) -> None:
        claimed = self.both(lambda s: s.claim_finalizing(owner, lease_seconds=15))
        if claimed is not None:
            self.claims.append(claimed.claim)

    @rule(
        owner=st.sampled_from(["anna", "bert"]),
        wants=st.lists(
            st.builds(
                Want,
                batch_id=st.sampled_from([*BATCHES, NOBODY]),
                model=st.sampled_from(MODELS),
                limit=st.integers(0, 3),
            ),
            max_size=4,
        ),
    )
    def claim_shards(self, owner: str, wants: list[Want]) -> None:
        for claimed in self.both(lambda s: s.claim_shards(owner, wants, lease_seconds=15)) or []:
            self.claims += [one.claim for one in claimed.shards]

    @rule(data=st.data())
    def plan_batch(self, data: st.DataObject) -> None:
        claim = self.pick_claim(data, {Kind.PLANNING})
        if claim is None:
            return
        models = data.draw(st.lists(st.sampled_from(MODELS), min_size=1, max_size=3))
        plan = plan_of(claim, models)
        self.both(lambda s: s.plan_batch(claim, plan, at=self.clock.now()))

    @rule(data=st.data(), failing=st.booleans())
    def end_unplanned(self, data: st.DataObject, failing: bool) -> None:  # noqa: FBT001 -- as above
        claim = self.pick_claim(data, {Kind.PLANNING})
        problems = [Problem(code="bad", message="It is bad.", line=1)] if failing else []
        if claim is not None:
            self.both(lambda s: s.end_unplanned(claim, problems=problems, at=self.clock.now()))

    @rule(data=st.data(), whole=st.booleans())
    def commit(self, data: st.DataObject, whole: bool) -> None:  # noqa: FBT001 -- as above
        claim = self.pick_claim(data, {Kind.SHARD})
        if claim is None:
            return
        numbers = {claim.unit.number, data.draw(st.integers(0, 3))}
        some = st.lists(st.integers(0, LINES - 1), unique=True, max_size=LINES)
        self.segments += 1
        parts = [
            self.part(
                claim,
                number,
                data.draw(st.integers(0, 1)),
                tuple(range(LINES)) if whole else tuple(data.draw(some)),
            )
            for number in sorted(numbers)
        ]
        self.do_commit(claim.unit.batch_id, parts)

    @rule(batch_id=st.sampled_from(BATCHES[:2]), whole=st.booleans())
    def work_honestly(self, batch_id: str, whole: bool) -> None:  # noqa: FBT001 -- as above
        """Claim what there is of a batch and commit what is undone, all of it or a line of each."""
        wants = [Want(batch_id=batch_id, model=model, limit=3) for model in MODELS]
        for claimed in self.both(lambda s: s.claim_shards("cleo", wants, lease_seconds=15)) or []:
            claims = [one.claim for one in claimed.shards]
            self.claims += claims
            self.segments += 1
            parts: list[ShardCommit] = []
            for one in claimed.shards:
                shard = one.shard
                undone = [index for index in range(LINES) if not is_done(shard.done, index)]
                indexes = tuple(undone if whole else undone[:1])
                parts.append(self.part(one.claim, shard.plan.number, shard.sequence, indexes))
            self.do_commit(batch_id, parts)
            if whole:
                self.claim_finalizing("cleo")
            else:
                self.hand_all_back(claims)

    def do_commit(self, batch_id: str, parts: list[ShardCommit]) -> None:
        writer, at = self.writer_of(batch_id), self.clock.now()
        if self.segments % 5:  # The others were begun before, or never.
            self.both(lambda s: s.begin_writer(writer, batch_id=batch_id, owner="cleo", at=at))
        commit = Commit(
            segment_id=f"segment-{self.segments}",
            batch_id=batch_id,
            shards=tuple(parts),
            at=self.clock.now(),
            writer=writer,
        )
        self.commits.append(commit)
        self.both(lambda s: s.commit(commit))

    def hand_all_back(self, claims: list[Claim]) -> None:
        self.both(lambda s: s.hand_back(claims))

    def writer_of(self, batch_id: str) -> str:
        """Return the writer of the next commit: a new one for every four."""
        return f"writer-{batch_id}-{self.segments // 4}"

    def part(
        self, claim: Claim, number: int, sequence: int, indexes: tuple[int, ...]
    ) -> ShardCommit:
        # A blob for every four commits, so that some slices touch and some do not.
        batch_id = claim.unit.batch_id
        blob = ResultBlob(batch_id=batch_id, writer=self.writer_of(batch_id), label="x").name
        place = Part(blob=blob, offset=self.segments * 10, length=10)
        return ShardCommit(
            number=number,
            epoch=claim.epoch,
            sequence=sequence,
            indexes=indexes,
            output=place if indexes else None,
            errors=place if len(indexes) == 1 else None,
            tally=Tally(completed=len(indexes) // 2, failed=len(indexes) - len(indexes) // 2),
        )

    @rule(data=st.data())
    def repeat_commit(self, data: st.DataObject) -> None:
        if self.commits:
            commit = data.draw(st.sampled_from(self.commits[-4:]))
            self.both(lambda s: s.commit(commit))

    @rule(data=st.data())
    def finish_batch(self, data: st.DataObject) -> None:
        claim = self.pick_claim(data, {Kind.FINALIZING})
        if claim is not None:
            self.both(lambda s: s.finish_batch(claim, at=self.clock.now()))

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claims = (
            data.draw(st.lists(st.sampled_from(self.claims), max_size=3)) if self.claims else []
        )
        self.both(lambda s: s.renew(claims, lease_seconds=15))

    @rule(data=st.data(), wait=st.sampled_from([0.0, 5.0, 8000.0]))
    def hand_back(self, data: st.DataObject, wait: float) -> None:
        claim = self.pick_claim(data, set(Kind))
        if claim is not None:
            self.both(lambda s: s.hand_back([claim], wait_seconds=wait))

    @invariant()
    def all_that_can_be_read_is_equal(self) -> None:
        self.both(lambda s: s.poll("anna", offers_max=2, batch_ids=[*BATCHES, NOBODY]))
        self.both(lambda s: s.poll("anna", offers_max=100, ending_only=True))
        for batch_id in BATCHES:
            self.both(lambda s, key=batch_id: s.get_batch("tenant-one", key))  # type: ignore[misc]  # mypy infers no lambda with a default
            self.both(lambda s, key=batch_id: s.get_input(key))  # type: ignore[misc]  # as above
        for file_id in ALL_FILES:
            self.both(lambda s, key=file_id: s.get_parts("tenant-one", key))  # type: ignore[misc]  # as above


def attempt(
    call: Callable[[Store], Awaitable[T]], store: Store
) -> tuple[T | None, tuple[str, str] | None]:
    """Return the answer of a ledger, or the kind and words of its refusal."""

    async def awaited() -> T:
        return await call(store)

    try:
        return run(awaited()), None
    except TidegateError as error:
        return None, (type(error).__name__, str(error))


def plan_of(claim: Claim, models: list[str]) -> Plan:
    """Return a plan under the name that this claim may write."""
    blob = PlanBlob(batch_id=claim.unit.batch_id, epoch=claim.epoch).name
    plan = a_plan(claim.unit.batch_id, [(model, LINES) for model in models])
    return replace(plan, blob=blob)
