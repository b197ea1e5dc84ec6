"""The contract of every ledger: garbage: unreferenced blobs (PROTOCOL 18). See `stores`."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from dataclasses import replace

from tidegate.domain.blob_names import PlanBlob, UploadBlob
from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, TidegateError
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import Plan
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    INPUT,
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_plan,
    claim_planning,
    planned,
    refusal,
    upload,
)
from tidegate.testing.contract.stores_retention import run_to_end


def a_file(upload_id: str, length: int = 10) -> tuple[File, list[Part]]:
    """Return what finishes an upload: a file in the upload's blob."""
    name = UploadBlob(upload_id=upload_id).name
    file = File(
        id=f"file-{upload_id}",
        tenant=TENANT,
        filename="in.jsonl",
        purpose=Purpose.BATCH,
        bytes=length,
        created_at=START,
    )
    return file, [Part(blob=name, offset=0, length=length)] if length else []


async def begin(store: Store, upload_id: str, *, at: float = START) -> str:
    """Begin an upload; return its blob's name."""
    name = UploadBlob(upload_id=upload_id).name
    await store.begin_upload(upload_id, tenant=TENANT, blob=name, at=at)
    return name


def plan_of(claim: Claim) -> Plan:
    """Return a plan under the name that this claim may write."""
    name = PlanBlob(batch_id=claim.unit.batch_id, epoch=claim.epoch).name
    return replace(a_plan(claim.unit.batch_id, [("m", 3)]), blob=name)


class UnreferencedContract:
    """The contract of `list_unreferenced`."""

    async def test_names_come_back_in_their_order_and_once(self, store: Store) -> None:
        names = ["b", "uploads/x", "a", "b", "plans/batch_1/1", "results/batch_1/w.x", "ü'\""]
        assert await store.list_unreferenced(names) == list(dict.fromkeys(names))
        assert await store.list_unreferenced([]) == []

    async def test_a_blob_is_needed_until_its_last_file_is_released(self, store: Store) -> None:
        await upload(store, "file-a")
        await upload(store, "file-b")
        for file_id in ("file-a", "file-b"):
            await store.delete_file(TENANT, file_id)
            assert await store.list_unreferenced([INPUT.blob]) == []
        await store.release_files(["file-a"], keep_seconds=0)
        assert await store.list_unreferenced([INPUT.blob]) == []
        await store.release_files(["file-b"], keep_seconds=0)
        assert await store.list_unreferenced([INPUT.blob]) == [INPUT.blob]

    async def test_results_are_needed_after_their_batch_was_dropped(self, store: Store) -> None:
        await planned(store)
        await run_to_end(store)
        await store.drop_batches(["batch_1"])
        assert await store.list_unreferenced(["results/batch_1"]) == []

    async def test_a_plan_is_needed_until_its_batch_is_terminal(self, store: Store) -> None:
        await planned(store)
        blob = a_plan("batch_1", []).blob
        assert await store.list_unreferenced([blob, "plans/other"]) == ["plans/other"]
        await run_to_end(store)
        assert await store.list_unreferenced([blob]) == [blob]

    async def test_a_pending_upload_references_no_blob(self, store: Store) -> None:
        name = await begin(store, "u")
        assert await store.list_unreferenced([name]) == [name]
        await store.finish_upload("u", *a_file("u"))
        assert await store.list_unreferenced([name]) == []


class RetainedContract:
    """The contract of `list_retained` and `forget_retained`."""

    async def test_retentions_that_are_over_are_listed_in_the_order_of_their_end(
        self, store: Store, clock: ManualClock
    ) -> None:
        until = {"a": 30, "b": 10, "c": 20, "d": 40, "e": 20}
        for upload_id, seconds in until.items():
            await begin(store, upload_id)
            file = await store.finish_upload(upload_id, *a_file(upload_id))
            await store.delete_file(TENANT, file.id)
            await store.release_files([file.id], keep_seconds=seconds)
        clock.turn(30)
        blobs = [f"uploads/{upload_id}" for upload_id in "bcea"]
        assert await store.list_retained(limit=4) == blobs
        assert await store.list_retained(limit=3) == blobs[:3]
        await store.forget_retained([blobs[0], blobs[2], "uploads/unknown"])
        await store.forget_retained([blobs[0]])
        await store.forget_retained([])
        assert await store.list_retained(limit=9) == [blobs[1], blobs[3]]

    async def test_a_forgotten_blob_is_no_longer_retained(self, store: Store) -> None:
        name = await begin(store, "u")
        file = await store.finish_upload("u", *a_file("u"))
        await store.delete_file(TENANT, file.id)
        await store.release_files([file.id], keep_seconds=60)
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []
        await store.forget_retained([name])
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]

    async def test_a_blob_needed_again_is_listed_but_not_deletable(self, store: Store) -> None:
        await begin(store, "u")
        file, parts = a_file("u")
        await store.finish_upload("u", file, parts)
        await store.begin_upload("v", tenant=TENANT, blob=parts[0].blob, at=START)
        await store.finish_upload("v", replace(file, id="file-v"), parts)
        await store.delete_file(TENANT, file.id)
        await store.release_files([file.id], keep_seconds=0)
        assert await store.list_retained(limit=9) == [parts[0].blob]
        assert await store.fence_and_list_deletable([parts[0].blob], idle_seconds=0) == []


class DeletableUploadsContract:
    """The contract of `fence_and_list_deletable` of the blobs of uploads."""

    async def test_a_young_pending_upload_is_not_deletable(
        self, store: Store, clock: ManualClock
    ) -> None:
        name = await begin(store, "u")
        clock.turn(59.75)
        assert await store.fence_and_list_deletable([name], idle_seconds=60) == []
        file, parts = a_file("u")
        assert await store.finish_upload("u", file, parts) == file

    async def test_a_long_pending_upload_is_abandoned(
        self, store: Store, clock: ManualClock
    ) -> None:
        name = await begin(store, "u")
        clock.turn(60)
        for _ in range(2):
            assert await store.fence_and_list_deletable([name], idle_seconds=60) == [name]
        await refusal(store.finish_upload("u", *a_file("u")), ClaimLost)
        await begin(store, "u")
        await refusal(store.finish_upload("u", *a_file("u")), ClaimLost)
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]

    async def test_a_file_keeps_its_blob(self, store: Store) -> None:
        name = await begin(store, "u")
        file = await store.finish_upload("u", *a_file("u"))
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []
        await store.delete_file(TENANT, file.id)
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []
        await store.release_files([file.id], keep_seconds=0)
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]

    async def test_a_blob_that_a_finished_upload_does_not_use_is_deletable(
        self, store: Store
    ) -> None:
        name = await begin(store, "u")
        await store.finish_upload("u", *a_file("u", 0))
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]

    async def test_the_blob_of_an_abandoned_upload_is_deletable(self, store: Store) -> None:
        name = await begin(store, "u")
        await store.abandon_upload("u")
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]

    async def test_the_blob_of_an_unknown_upload_is_deletable_and_it_can_not_begin(
        self, store: Store
    ) -> None:
        name = UploadBlob(upload_id="u").name
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]
        await begin(store, "u")
        await refusal(store.finish_upload("u", *a_file("u")), ClaimLost)
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]

    async def test_the_blob_of_a_purged_upload_is_deletable(self, store: Store) -> None:
        name = await begin(store, "u")
        await store.abandon_upload("u")
        await store.purge(age_seconds=0, limit=9)
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == [name]

    async def test_every_upload_of_the_blob_counts(self, store: Store) -> None:
        name = UploadBlob(upload_id="u").name
        await store.begin_upload("other", tenant=TENANT, blob=name, at=START)
        assert await store.fence_and_list_deletable([name], idle_seconds=1) == []
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]
        file, parts = a_file("u")
        await refusal(store.finish_upload("other", file, parts), ClaimLost)

    async def test_unknown_names_are_never_deletable(self, store: Store) -> None:
        await planned(store)
        names = ["", "a", "uploads/", "uploads/a/b", "plans/batch_9", "results/batch_9/w"]
        assert await store.list_unreferenced(names) == names
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == []
        assert await store.fence_and_list_deletable([], idle_seconds=0) == []

    async def test_deletable_names_keep_their_order_and_are_unique(self, store: Store) -> None:
        names = [f"uploads/{letter}" for letter in "cabc"]
        await begin(store, "b")
        assert await store.fence_and_list_deletable(names, idle_seconds=1) == [
            "uploads/c",
            "uploads/a",
        ]

    async def test_one_of_a_concurrent_finish_and_fence_wins(self, store: Store) -> None:
        names = [await begin(store, f"u{number}") for number in range(20)]

        async def finish(number: int) -> bool:
            try:
                await store.finish_upload(f"u{number}", *a_file(f"u{number}"))
            except ClaimLost:
                return False
            return True

        async def fence_and_list_deletable(name: str) -> bool:
            return await store.fence_and_list_deletable([name], idle_seconds=0) == [name]

        calls = [
            call
            for number, name in enumerate(names)
            for call in (
                (finish(number), fence_and_list_deletable(name))
                if number % 2
                else (fence_and_list_deletable(name), finish(number))
            )
        ]
        answers = await asyncio.gather(*calls)
        assert all(
            first != second for first, second in zip(answers[::2], answers[1::2], strict=True)
        )


class DeletablePlansContract:
    """The contract of `fence_and_list_deletable` of plans."""

    async def test_a_plan_that_is_being_written_is_not_deletable(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        clock.turn(LEASE - 1)
        assert await store.fence_and_list_deletable([plan.blob], idle_seconds=0) == []
        assert (await store.plan_batch(claim, plan, at=START)).is_planned

    async def test_an_expired_claim_is_fenced(self, store: Store, clock: ManualClock) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        clock.turn(LEASE)
        for _ in range(2):
            assert await store.fence_and_list_deletable([plan.blob], idle_seconds=0) == [plan.blob]
        await refusal(store.plan_batch(claim, plan, at=START), ClaimLost)
        await refusal(store.end_unplanned(claim, problems=[], at=START), ClaimLost)
        assert await store.renew([claim], lease_seconds=LEASE) == [claim.unit]
        new = (await claim_planning(store)).claim
        assert new.epoch == claim.epoch + 2
        assert (await store.plan_batch(new, plan_of(new), at=START)).is_planned

    async def test_a_claim_that_was_handed_back_is_fenced(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        await store.hand_back([claim], wait_seconds=5)
        assert await store.fence_and_list_deletable([plan.blob], idle_seconds=0) == [plan.blob]
        await refusal(store.plan_batch(claim, plan, at=START), ClaimLost)
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None, "it must wait"

    async def test_a_superseded_plan_is_deletable_and_the_new_one_is_not(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        old = plan_of((await claim_planning(store, "anna")).claim)
        clock.turn(LEASE)
        claim = (await claim_planning(store, "bert")).claim
        new = plan_of(claim)
        assert await store.fence_and_list_deletable([old.blob, new.blob], idle_seconds=0) == [
            old.blob
        ]
        await store.plan_batch(claim, new, at=START)
        assert await store.fence_and_list_deletable([old.blob, new.blob], idle_seconds=0) == [
            old.blob
        ]

    async def test_the_plan_of_a_batch_is_not_deletable_until_it_ends(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        await store.plan_batch(claim, plan, at=START)
        clock.turn(LEASE * 9)
        other = replace(plan, blob=PlanBlob(batch_id="batch_1", epoch=9).name)
        assert await store.fence_and_list_deletable([plan.blob, other.blob], idle_seconds=0) == [
            other.blob
        ]
        await run_to_end(store)
        assert await store.fence_and_list_deletable([plan.blob], idle_seconds=0) == [plan.blob]
        await store.drop_batches(["batch_1"])
        assert await store.fence_and_list_deletable([plan.blob], idle_seconds=0) == [plan.blob]

    async def test_a_plan_of_a_future_epoch_is_not_deletable(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        name = PlanBlob(batch_id="batch_1", epoch=2).name
        await claim_planning(store)
        clock.turn(LEASE)
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []
        assert (await claim_planning(store)).claim.epoch == 2

    async def test_the_plan_of_an_unknown_batch_is_deletable(self, store: Store) -> None:
        name = PlanBlob(batch_id="batch_x", epoch=1).name
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]

    async def test_one_of_a_concurrent_plan_and_fence_wins(
        self, store: Store, clock: ManualClock
    ) -> None:
        claims: list[Claim] = []
        for number in range(10):
            await store.create_batch(a_batch(f"batch_{number}"))
            claims.append((await claim_planning(store)).claim)
        clock.turn(LEASE)

        async def plan(claim: Claim) -> bool:
            try:
                await store.plan_batch(claim, plan_of(claim), at=START)
            except TidegateError:
                return False
            return True

        async def fence_and_list_deletable(claim: Claim) -> bool:
            return bool(await store.fence_and_list_deletable([plan_of(claim).blob], idle_seconds=0))

        answers = await asyncio.gather(
            *(call(claim) for claim in claims[:5] for call in (plan, fence_and_list_deletable)),
            *(call(claim) for claim in claims[5:] for call in (fence_and_list_deletable, plan)),
        )
        assert all(
            first != second for first, second in zip(answers[::2], answers[1::2], strict=True)
        )
