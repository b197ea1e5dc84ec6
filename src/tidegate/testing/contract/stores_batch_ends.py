"""The contract of every ledger: plans and ends (PROTOCOL 5, 15, 16). See `stores` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

from dataclasses import replace

from tidegate.domain.batch import Counts, Problem, Status
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.errors import ClaimLost, NotFound
from tidegate.domain.file import Part
from tidegate.domain.shard import Tally
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    WINDOW,
    ManualClock,
    a_batch,
    a_commit,
    a_plan,
    claim_finalizing,
    claim_planning,
    claim_shard,
    list_offers,
    planned,
    refusal,
    result,
    run_whole,
)

OUTPUT = "file-batch_1-output"
ERRORS = "file-batch_1-error"


class PlanBatchContract:
    """The contract of `plan_batch` (PROTOCOL 5)."""

    async def test_the_batch_is_in_progress_with_its_totals(self, store: Store) -> None:
        before = await store.create_batch(a_batch())
        claimed = await claim_planning(store)
        plan = a_plan("batch_1", [("n", 2), ("m", 3)])
        batch = await store.plan_batch(claimed.claim, plan, at=START + 2)
        assert batch == replace(
            before,
            status=Status.IN_PROGRESS,
            version=1,
            in_progress_at=START + 2,
            counts=Counts(total=5),
            models=("m", "n"),
            plan_blob=plan.blob,
            output_file_id=plan.output_file_id,
            error_file_id=plan.error_file_id,
        )
        assert await store.get_batch(TENANT, "batch_1") == batch
        assert [(o.model, o.shards) for o in await list_offers(store)] == [("m", 1), ("n", 1)]

    async def test_a_batch_with_a_plan_waits_for_nothing(self, store: Store) -> None:
        await store.create_batch(a_batch())
        await store.note_waiting("batch_1", "its input can't be read")
        claimed = await claim_planning(store)
        plan = a_plan("batch_1", [("m", 1)])
        assert (await store.plan_batch(claimed.claim, plan, at=START)).waiting_for is None
        assert (await store.get_batch(TENANT, "batch_1")).waiting_for is None

    async def test_the_reserved_files_do_not_exist_yet(self, store: Store) -> None:
        batch = await planned(store)
        for file_id in (batch.output_file_id, batch.error_file_id):
            await refusal(store.get_file(TENANT, file_id or ""), NotFound)

    async def test_a_repeat_answers_however_far_the_batch_has_come(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = a_plan("batch_1", [("m", 1)])
        first = await store.plan_batch(claim, plan, at=START)
        assert await store.plan_batch(claim, plan, at=START + 1) == first
        await run_whole(store)
        moved = await store.get_batch(TENANT, "batch_1")
        assert await store.plan_batch(claim, plan, at=START + 1) == moved
        ended = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        assert await store.plan_batch(claim, plan, at=START + 1) == ended

    async def test_a_replaced_planner_is_refused(self, store: Store, clock: ManualClock) -> None:
        await store.create_batch(a_batch())
        old = await claim_planning(store, "anna")
        clock.turn(LEASE)
        new = await claim_planning(store, "bert")
        plan = a_plan("batch_1", [("m", 1)])
        await refusal(store.plan_batch(old.claim, plan, at=START), ClaimLost)
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.VALIDATING
        await store.plan_batch(new.claim, plan, at=START)
        await refusal(store.plan_batch(old.claim, plan, at=START), ClaimLost)

    async def test_an_expired_claim_that_nobody_took_may_plan(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        claimed = await claim_planning(store)
        clock.turn(LEASE * 3)
        await store.plan_batch(claimed.claim, a_plan("batch_1", [("m", 1)]), at=START)

    async def test_only_one_plan_counts(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = a_plan("batch_1", [("m", 1)])
        await store.plan_batch(claim, plan, at=START)
        other = replace(plan, blob="plans/other")
        await refusal(store.plan_batch(claim, other, at=START), ClaimLost)

    async def test_a_cancelled_batch_takes_no_plan(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        cancelling = await store.cancel_batch(TENANT, "batch_1", at=START)
        await refusal(store.plan_batch(claim, a_plan("batch_1", [("m", 1)]), at=START), ClaimLost)
        assert await store.get_batch(TENANT, "batch_1") == cancelling
        assert await list_offers(store) == []

    async def test_an_unknown_batch_takes_no_plan(self, store: Store) -> None:
        unit = Unit(batch_id="batch_x", kind=Kind.PLANNING)
        claim = Claim(unit=unit, owner="anna", epoch=1, expires_at=START)
        await refusal(store.plan_batch(claim, a_plan("batch_x", [("m", 1)]), at=START), ClaimLost)
        await refusal(store.end_unplanned(claim, problems=[], at=START), ClaimLost)
        claim = replace(claim, unit=replace(unit, kind=Kind.FINALIZING))
        await refusal(store.finish_batch(claim, at=START), ClaimLost)

    async def test_a_plan_of_two_thousand_shards_is_one_call(self, store: Store) -> None:
        await planned(store, shards=[("m", 1)] * 2000)
        (offer,) = await list_offers(store)
        assert offer.shards == 2000


class EndUnplannedContract:
    """The contract of `end_unplanned`."""

    async def test_problems_make_it_failed(self, store: Store) -> None:
        before = await store.create_batch(a_batch())
        problems = (
            Problem(code="bad", message="It is bad: ü.", line=3, param="body"),
            Problem(code="worse", message="It is worse."),
        )
        claim = (await claim_planning(store)).claim
        batch = await store.end_unplanned(claim, problems=problems, at=START + 1)
        assert batch == replace(
            before, status=Status.FAILED, version=1, failed_at=START + 1, problems=problems
        )
        assert await store.get_batch(TENANT, "batch_1") == batch

    async def test_without_problems_it_expired(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        batch = await store.end_unplanned(claim, problems=[], at=START + WINDOW)
        assert (batch.status, batch.expired_at) == (Status.EXPIRED, START + WINDOW)
        assert (batch.counts, batch.output_file_id, batch.error_file_id) == (Counts(), None, None)

    async def test_a_cancelling_batch_with_problems_is_cancelled(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        await store.cancel_batch(TENANT, "batch_1", at=START)
        problems = [Problem(code="bad", message="It is bad.")]
        batch = await store.end_unplanned(claim, problems=problems, at=START + 1)
        assert (batch.status, batch.cancelled_at) == (Status.CANCELLED, START + 1)
        assert batch.problems == ()

    async def test_a_repeat_gives_the_first_answer(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        problems = [Problem(code="bad", message="It is bad.")]
        first = await store.end_unplanned(claim, problems=problems, at=START)
        assert await store.end_unplanned(claim, problems=problems, at=START + 9) == first
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None

    async def test_a_replaced_planner_is_refused(self, store: Store, clock: ManualClock) -> None:
        await store.create_batch(a_batch())
        old = (await claim_planning(store, "anna")).claim
        clock.turn(LEASE)
        new = (await claim_planning(store, "bert")).claim
        await refusal(store.end_unplanned(old, problems=[], at=START), ClaimLost)
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.VALIDATING
        await store.end_unplanned(new, problems=[], at=START)
        await refusal(store.end_unplanned(old, problems=[], at=START), ClaimLost)

    async def test_a_planned_batch_does_not_end_unplanned(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        batch = await store.plan_batch(claim, a_plan("batch_1", [("m", 1)]), at=START)
        await refusal(store.end_unplanned(claim, problems=[], at=START), ClaimLost)
        assert await store.get_batch(TENANT, "batch_1") == batch


class FinishBatchContract:
    """The contract of `finish_batch` (PROTOCOL 15 and 16)."""

    async def test_a_batch_completes_and_its_file_is_final(self, store: Store) -> None:
        await planned(store)
        await run_whole(store)
        before = await store.get_batch(TENANT, "batch_1")
        claim = (await claim_finalizing(store)).claim
        batch = await store.finish_batch(claim, at=START + 60)
        assert batch == replace(before, status=Status.COMPLETED, version=3, completed_at=START + 60)
        assert batch.plan_blob is not None
        assert await store.get_batch(TENANT, "batch_1") == batch
        file = await store.get_file(TENANT, OUTPUT)
        assert (file.growing, file.expires_at) == (False, None)
        await store.delete_file(TENANT, OUTPUT)

    async def test_its_files_expire_when_asked_to(self, store: Store, clock: ManualClock) -> None:
        await planned(store, a_batch(output_expires_seconds=3600), shards=[("m", 2)])
        claimed = await claim_shard(store)
        commit = a_commit(
            result(
                claimed,
                [0, 1],
                output=Part(blob="results", offset=0, length=3),
                errors=Part(blob="results", offset=3, length=4),
                tally=Tally(completed=1, failed=1),
            )
        )
        await store.commit(commit)
        await store.finish_batch((await claim_finalizing(store)).claim, at=START + 60)
        for file_id, length in [(OUTPUT, 3), (ERRORS, 4)]:
            file = await store.get_file(TENANT, file_id)
            assert (file.bytes, file.expires_at) == (length, START + 60 + 3600)
        clock.turn(3660)
        await refusal(store.get_file(TENANT, OUTPUT), NotFound)

    async def test_a_batch_with_expired_lines_is_expired(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        tally = Tally(completed=1, failed=2, expired=1)
        await store.commit(a_commit(result(claimed, [0, 1, 2], tally=tally)))
        batch = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        assert batch.status is Status.EXPIRED

    async def test_a_cancelling_batch_is_cancelled(self, store: Store) -> None:
        await planned(store)
        await store.cancel_batch(TENANT, "batch_1", at=START)
        await run_whole(store)
        batch = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        assert batch.status is Status.CANCELLED

    async def test_a_repeat_gives_the_first_answer(self, store: Store) -> None:
        await planned(store)
        await run_whole(store)
        claim = (await claim_finalizing(store)).claim
        first = await store.finish_batch(claim, at=START + 1)
        assert await store.finish_batch(claim, at=START + 9) == first

    async def test_a_replaced_finalizer_is_refused(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        await run_whole(store)
        old = (await claim_finalizing(store, "anna")).claim
        clock.turn(LEASE)
        new = (await claim_finalizing(store, "bert")).claim
        await refusal(store.finish_batch(old, at=START), ClaimLost)
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.FINALIZING
        await store.finish_batch(new, at=START)
        await refusal(store.finish_batch(old, at=START), ClaimLost)

    async def test_a_batch_with_open_shards_cannot_be_closed(self, store: Store) -> None:
        await planned(store)
        unit = Unit(batch_id="batch_1", kind=Kind.FINALIZING)
        claim = Claim(unit=unit, owner="anna", epoch=0, expires_at=START + LEASE)
        await refusal(store.finish_batch(claim, at=START), ClaimLost)
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.IN_PROGRESS
