"""The contract of every ledger: blobs that nobody needs (PROTOCOL 18). See `stores`."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from dataclasses import replace

from tidegate.domain.blob_names import PlanBlob, UploadBlob
from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, TidegateError
from tidegate.domain.file import File, Part, Purpose
from tidegate.stores.base import Plan, Store
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
from tidegate.testing.contract.stores_upkeep import run_to_end


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
    """What `unreferenced` promises."""

    async def test_names_come_back_in_their_order_and_once(self, store: Store) -> None:
        names = ["b", "uploads/x", "a", "b", "plans/batch_1/1", "results/batch_1/w.x", "ü'\""]
        assert await store.unreferenced(names) == list(dict.fromkeys(names))
        assert await store.unreferenced([]) == []

    async def test_a_blob_is_needed_until_its_last_file_lets_go(self, store: Store) -> None:
        await upload(store, "file-a")
        await upload(store, "file-b")
        for file_id in ("file-a", "file-b"):
            await store.delete_file(TENANT, file_id)
            assert await store.unreferenced([INPUT.blob]) == []
        await store.release_files(["file-a"], keep_seconds=0)
        assert await store.unreferenced([INPUT.blob]) == []
        await store.release_files(["file-b"], keep_seconds=0)
        assert await store.unreferenced([INPUT.blob]) == [INPUT.blob]

    async def test_results_are_needed_though_their_batch_is_gone(self, store: Store) -> None:
        await planned(store)
        await run_to_end(store)
        await store.drop_batches(["batch_1"])
        assert await store.unreferenced(["results/batch_1"]) == []

    async def test_a_plan_is_needed_while_its_batch_lives(self, store: Store) -> None:
        await planned(store)
        blob = a_plan("batch_1", []).blob
        assert await store.unreferenced([blob, "plans/other"]) == ["plans/other"]
        await run_to_end(store)
        assert await store.unreferenced([blob]) == [blob]

    async def test_an_upload_under_way_needs_nothing_yet(self, store: Store) -> None:
        name = await begin(store, "u")
        assert await store.unreferenced([name]) == [name]
        await store.finish_upload("u", *a_file("u"))
        assert await store.unreferenced([name]) == []


class RetainedContract:
    """What `list_retained` and `forget_retained` promise."""

    async def test_those_whose_time_is_over_come_in_the_order_of_time(
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

    async def test_a_forgotten_blob_is_kept_for_nobody(self, store: Store) -> None:
        name = await begin(store, "u")
        file = await store.finish_upload("u", *a_file("u"))
        await store.delete_file(TENANT, file.id)
        await store.release_files([file.id], keep_seconds=60)
        assert await store.condemn([name], idle_seconds=0) == []
        await store.forget_retained([name])
        assert await store.condemn([name], idle_seconds=0) == [name]

    async def test_what_is_needed_again_is_listed_but_not_condemned(self, store: Store) -> None:
        await begin(store, "u")
        file, parts = a_file("u")
        await store.finish_upload("u", file, parts)
        await store.begin_upload("v", tenant=TENANT, blob=parts[0].blob, at=START)
        await store.finish_upload("v", replace(file, id="file-v"), parts)
        await store.delete_file(TENANT, file.id)
        await store.release_files([file.id], keep_seconds=0)
        assert await store.list_retained(limit=9) == [parts[0].blob]
        assert await store.condemn([parts[0].blob], idle_seconds=0) == []


class CondemnUploadsContract:
    """What `condemn` promises of the blobs of uploads."""

    async def test_a_young_upload_stays(self, store: Store, clock: ManualClock) -> None:
        name = await begin(store, "u")
        clock.turn(59.75)
        assert await store.condemn([name], idle_seconds=60) == []
        file, parts = a_file("u")
        assert await store.finish_upload("u", file, parts) == file

    async def test_one_pending_for_long_is_abandoned(
        self, store: Store, clock: ManualClock
    ) -> None:
        name = await begin(store, "u")
        clock.turn(60)
        for _ in range(2):
            assert await store.condemn([name], idle_seconds=60) == [name]
        await refusal(store.finish_upload("u", *a_file("u")), ClaimLost)
        await begin(store, "u")
        await refusal(store.finish_upload("u", *a_file("u")), ClaimLost)
        assert await store.condemn([name], idle_seconds=1) == [name]

    async def test_a_file_keeps_its_blob(self, store: Store) -> None:
        name = await begin(store, "u")
        file = await store.finish_upload("u", *a_file("u"))
        assert await store.condemn([name], idle_seconds=0) == []
        await store.delete_file(TENANT, file.id)
        assert await store.condemn([name], idle_seconds=0) == []
        await store.release_files([file.id], keep_seconds=0)
        assert await store.condemn([name], idle_seconds=1) == [name]

    async def test_bytes_that_a_finished_upload_left_out_go(self, store: Store) -> None:
        name = await begin(store, "u")
        await store.finish_upload("u", *a_file("u", 0))
        assert await store.condemn([name], idle_seconds=1) == [name]

    async def test_an_abandoned_upload_goes(self, store: Store) -> None:
        name = await begin(store, "u")
        await store.abandon_upload("u")
        assert await store.condemn([name], idle_seconds=1) == [name]

    async def test_one_that_was_never_begun_goes_and_never_begins(self, store: Store) -> None:
        name = UploadBlob(upload_id="u").name
        assert await store.condemn([name], idle_seconds=1) == [name]
        await begin(store, "u")
        await refusal(store.finish_upload("u", *a_file("u")), ClaimLost)
        assert await store.condemn([name], idle_seconds=1) == [name]

    async def test_one_that_was_purged_goes(self, store: Store) -> None:
        name = await begin(store, "u")
        await store.abandon_upload("u")
        await store.purge(age_seconds=0, limit=9)
        assert await store.condemn([name], idle_seconds=1) == [name]

    async def test_whoever_writes_this_blob_is_asked(self, store: Store) -> None:
        name = UploadBlob(upload_id="u").name
        await store.begin_upload("other", tenant=TENANT, blob=name, at=START)
        assert await store.condemn([name], idle_seconds=1) == []
        assert await store.condemn([name], idle_seconds=0) == [name]
        file, parts = a_file("u")
        await refusal(store.finish_upload("other", file, parts), ClaimLost)

    async def test_names_of_others_never_go(self, store: Store) -> None:
        await planned(store)
        names = ["", "a", "uploads/", "uploads/a/b", "plans/batch_9", "results/batch_9/w"]
        assert await store.unreferenced(names) == names
        assert await store.condemn(names, idle_seconds=0) == []
        assert await store.condemn([], idle_seconds=0) == []

    async def test_those_that_may_go_come_in_their_order_and_once(self, store: Store) -> None:
        names = [f"uploads/{letter}" for letter in "cabc"]
        await begin(store, "b")
        assert await store.condemn(names, idle_seconds=1) == ["uploads/c", "uploads/a"]

    async def test_of_an_end_and_a_fence_at_once_one_wins(self, store: Store) -> None:
        names = [await begin(store, f"u{number}") for number in range(20)]

        async def finish(number: int) -> bool:
            try:
                await store.finish_upload(f"u{number}", *a_file(f"u{number}"))
            except ClaimLost:
                return False
            return True

        async def condemn(name: str) -> bool:
            return await store.condemn([name], idle_seconds=0) == [name]

        calls = [
            call
            for number, name in enumerate(names)
            for call in (
                (finish(number), condemn(name)) if number % 2 else (condemn(name), finish(number))
            )
        ]
        answers = await asyncio.gather(*calls)
        assert all(
            first != second for first, second in zip(answers[::2], answers[1::2], strict=True)
        )


class CondemnPlansContract:
    """What `condemn` promises of plans."""

    async def test_a_plan_that_is_being_written_stays(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        clock.turn(LEASE - 1)
        assert await store.condemn([plan.blob], idle_seconds=0) == []
        assert (await store.plan_batch(claim, plan, at=START)).is_planned

    async def test_an_expired_claim_is_fenced(self, store: Store, clock: ManualClock) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        clock.turn(LEASE)
        for _ in range(2):
            assert await store.condemn([plan.blob], idle_seconds=0) == [plan.blob]
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
        assert await store.condemn([plan.blob], idle_seconds=0) == [plan.blob]
        await refusal(store.plan_batch(claim, plan, at=START), ClaimLost)
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None, "it must wait"

    async def test_a_superseded_plan_goes_and_the_new_one_stays(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        old = plan_of((await claim_planning(store, "anna")).claim)
        clock.turn(LEASE)
        claim = (await claim_planning(store, "bert")).claim
        new = plan_of(claim)
        assert await store.condemn([old.blob, new.blob], idle_seconds=0) == [old.blob]
        await store.plan_batch(claim, new, at=START)
        assert await store.condemn([old.blob, new.blob], idle_seconds=0) == [old.blob]

    async def test_the_plan_of_a_batch_stays_until_it_ends(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        claim = (await claim_planning(store)).claim
        plan = plan_of(claim)
        await store.plan_batch(claim, plan, at=START)
        clock.turn(LEASE * 9)
        other = replace(plan, blob=PlanBlob(batch_id="batch_1", epoch=9).name)
        assert await store.condemn([plan.blob, other.blob], idle_seconds=0) == [other.blob]
        await run_to_end(store)
        assert await store.condemn([plan.blob], idle_seconds=0) == [plan.blob]
        await store.drop_batches(["batch_1"])
        assert await store.condemn([plan.blob], idle_seconds=0) == [plan.blob]

    async def test_a_name_that_somebody_will_write_stays(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        name = PlanBlob(batch_id="batch_1", epoch=2).name
        await claim_planning(store)
        clock.turn(LEASE)
        assert await store.condemn([name], idle_seconds=0) == []
        assert (await claim_planning(store)).claim.epoch == 2

    async def test_the_plan_of_an_unknown_batch_goes(self, store: Store) -> None:
        name = PlanBlob(batch_id="batch_x", epoch=1).name
        assert await store.condemn([name], idle_seconds=0) == [name]

    async def test_of_a_plan_and_a_fence_at_once_one_wins(
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

        async def condemn(claim: Claim) -> bool:
            return bool(await store.condemn([plan_of(claim).blob], idle_seconds=0))

        answers = await asyncio.gather(
            *(call(claim) for claim in claims[:5] for call in (plan, condemn)),
            *(call(claim) for claim in claims[5:] for call in (condemn, plan)),
        )
        assert all(
            first != second for first, second in zip(answers[::2], answers[1::2], strict=True)
        )
