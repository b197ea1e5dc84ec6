"""The contract of every ledger: retention of files and batches. See `stores`."""

# ruff: noqa: D102 -- these are tests: their names are sentences, their numbers plain

from dataclasses import replace

from tidegate.domain.errors import ClaimLost, NotFound
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import OldBatch, Purged, UnusedFile
from tidegate.domain.shard import Verdict
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    INPUT,
    LEASE,
    START,
    TENANT,
    WINDOW,
    ManualClock,
    a_batch,
    a_commit,
    a_plan,
    begin_writer,
    claim_finalizing,
    claim_planning,
    claim_shard,
    planned,
    refusal,
    result,
    run_whole,
    upload,
)

OUTPUT = "file-batch_1-output"
LATER = START + 1e6


async def run_to_end(store: Store, batch_id: str = "batch_1", *, at: float = START) -> None:
    """Complete a planned batch and finalize it."""
    await run_whole(store, batch_id, at=at)
    await store.finish_batch((await claim_finalizing(store)).claim, at=at)


async def unused(store: Store) -> list[str]:
    """Return the ids of the unused files."""
    return [file.file_id for file in await store.list_unused_files(limit=100)]


class ListUnusedFilesContract:
    """The contract of `list_unused_files`."""

    async def test_a_visible_file_is_in_use(self, store: Store) -> None:
        await upload(store, expires_at=START + 1)
        assert await store.list_unused_files(limit=1) == []

    async def test_deleted_and_expired_files_are_unused(
        self, store: Store, clock: ManualClock
    ) -> None:
        await upload(store, "file-a", expires_at=START + 1)
        await upload(store, "file-b", created_at=START - 1)
        await upload(store, "file-c", tenant="tenant-two", expires_at=START + 1)
        await store.delete_file(TENANT, "file-b")
        await store.delete_file("tenant-two", "file-c")
        deleted = UnusedFile(file_id="file-b", tenant=TENANT, bytes=INPUT.length, why="deleted")
        foreign = replace(deleted, file_id="file-c", tenant="tenant-two")
        assert await store.list_unused_files(limit=9) == [deleted, foreign]
        clock.turn(1)
        expired = replace(deleted, file_id="file-a", why="expired")
        assert await store.list_unused_files(limit=9) == [deleted, expired, foreign]
        assert await store.list_unused_files(limit=3) == [deleted, expired, foreign]
        assert await store.list_unused_files(limit=2) == [deleted, expired]

    async def test_a_file_that_a_live_batch_holds_is_in_use(self, store: Store) -> None:
        await upload(store)
        await planned(store)
        await planned(store, a_batch("batch_2"))
        await store.delete_file(TENANT, "file-in")
        await run_to_end(store)
        assert await unused(store) == []
        await run_to_end(store, "batch_2")
        assert await unused(store) == ["file-in"]

    async def test_a_batch_that_came_too_late_holds_nothing(self, store: Store) -> None:
        await upload(store)
        await store.delete_file(TENANT, "file-in")
        await store.create_batch(a_batch())
        assert await unused(store) == ["file-in"]

    async def test_files_that_are_held_do_not_hide_others(self, store: Store) -> None:
        await upload(store, "file-in", created_at=START - 1)
        await upload(store, "file-x")
        await store.create_batch(a_batch())
        for file_id in ("file-in", "file-x"):
            await store.delete_file(TENANT, file_id)
        (found,) = await store.list_unused_files(limit=1)
        assert found.file_id == "file-x"

    async def test_results_are_in_use_until_they_expire(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, a_batch(output_expires_seconds=60))
        await run_whole(store)
        clock.turn(61)
        assert await unused(store) == []
        await store.finish_batch((await claim_finalizing(store)).claim, at=START + 61)
        clock.turn(59)
        assert await unused(store) == []
        clock.turn(1)
        assert await unused(store) == [OUTPUT]


class ReleaseFilesContract:
    """The contract of `release_files`."""

    async def test_a_released_file_only_marks_its_place(self, store: Store) -> None:
        await upload(store, "file-a", created_at=START + 1)
        await upload(store, "file-b")
        await store.delete_file(TENANT, "file-a")
        assert await store.release_files(["file-a"], keep_seconds=0) == ["file-a"]
        await refusal(store.get_file(TENANT, "file-a"), NotFound)
        await refusal(store.get_parts(TENANT, "file-a"), NotFound)
        await refusal(store.delete_file(TENANT, "file-a"), NotFound)
        page = await store.list_files(
            TENANT, after="file-a", limit=9, ascending=False, purpose=None
        )
        assert [file.id for file in page.items] == ["file-b"]
        assert await unused(store) == []

    async def test_a_file_in_use_is_not_released(self, store: Store, clock: ManualClock) -> None:
        await upload(store, "file-in", expires_at=START + WINDOW)
        await upload(store, "file-b")
        await planned(store)
        files = ["file-in", "file-b", OUTPUT, "file-unknown"]
        await run_whole(store)
        assert await store.release_files(files, keep_seconds=1e6) == []
        clock.turn(WINDOW)  # The input has expired, and the batch still holds it.
        assert await store.release_files(files, keep_seconds=1e6) == []
        assert await store.get_input("batch_1") == (INPUT,)
        assert (await store.get_parts(TENANT, OUTPUT))[0].bytes > 0
        assert await store.list_unreferenced([INPUT.blob]) == []

    async def test_a_repeat_gives_the_first_answer(self, store: Store) -> None:
        await upload(store, "file-a")
        await upload(store, "file-b")
        await store.delete_file(TENANT, "file-a")
        for _ in range(2):
            asked = ["file-b", "file-a", "file-a"]
            assert await store.release_files(asked, keep_seconds=0) == ["file-a"]
        assert await store.release_files([], keep_seconds=0) == []

    async def test_its_blobs_are_kept_for_readers(self, store: Store, clock: ManualClock) -> None:
        await upload(store, "file-a")
        await store.delete_file(TENANT, "file-a")
        await store.release_files(["file-a"], keep_seconds=60)
        clock.turn(59)
        assert await store.list_unreferenced([INPUT.blob]) == []
        assert await store.list_retained(limit=9) == []
        clock.turn(1)
        assert await store.list_unreferenced([INPUT.blob]) == [INPUT.blob]
        assert await store.list_retained(limit=9) == [INPUT.blob]

    async def test_the_longest_retention_counts(self, store: Store, clock: ManualClock) -> None:
        for file_id, until in (("file-a", 60), ("file-b", 20), ("file-c", 70)):
            await upload(store, file_id)
            await store.delete_file(TENANT, file_id)
            await store.release_files([file_id], keep_seconds=until)
        clock.turn(69)
        assert await store.list_unreferenced([INPUT.blob]) == []
        clock.turn(1)
        assert await store.list_unreferenced([INPUT.blob]) == [INPUT.blob]

    async def test_a_released_file_stays_hidden_if_the_clock_is_set_back(
        self, store: Store, clock: ManualClock
    ) -> None:
        await upload(store, expires_at=START + 10)
        clock.turn(10)
        assert await store.release_files(["file-in"], keep_seconds=0) == ["file-in"]
        clock.turn(-10)
        await refusal(store.get_parts(TENANT, "file-in"), NotFound)
        await store.create_batch(a_batch())
        assert await store.get_input("batch_1") is None

    async def test_an_ended_batch_does_not_hold_its_released_input(self, store: Store) -> None:
        await upload(store)
        await planned(store)
        await store.delete_file(TENANT, "file-in")
        await run_to_end(store)
        assert await store.get_input("batch_1") == (INPUT,)
        await store.release_files(["file-in"], keep_seconds=0)
        assert await store.get_input("batch_1") is None
        await store.purge(age_seconds=0, limit=9)
        assert await store.get_input("batch_1") is None

    async def test_an_upload_still_names_its_released_file(self, store: Store) -> None:
        file = await upload(store)
        await store.delete_file(TENANT, "file-in")
        await store.release_files(["file-in"], keep_seconds=0)
        assert await store.finish_upload("upload-file-in", file, [INPUT]) == file
        assert not await store.abandon_upload("upload-file-in")
        assert await store.list_unreferenced([INPUT.blob]) == [INPUT.blob]


class OldBatchesContract:
    """The contract of `list_ending`, `list_old_batches` and `drop_batches`."""

    async def test_a_live_batch_has_to_end_once_its_window_has_closed(
        self, store: Store, clock: ManualClock
    ) -> None:
        late = await planned(store, a_batch("batch_1", created_at=START + 1))
        early = await planned(store, a_batch("batch_2"))
        done = await planned(store, a_batch("batch_3"))
        await run_to_end(store, done.id)
        clock.turn(WINDOW - 1)
        assert await store.list_ending(limit=9) == []
        clock.turn(1)
        assert await store.list_ending(limit=9) == [early]
        clock.turn(1)
        new = await store.create_batch(a_batch("batch_4", created_at=START - 1))
        assert await store.list_ending(limit=9) == [new, early, late]
        assert await store.list_ending(limit=2) == [new, early]

    async def test_a_batch_has_to_end_until_it_is_finalized(self, store: Store) -> None:
        await planned(store)
        assert await store.list_ending(limit=9) == []
        await run_whole(store)
        assert [batch.id for batch in await store.list_ending(limit=9)] == ["batch_1"]
        claim = (await claim_finalizing(store)).claim
        assert [batch.id for batch in await store.list_ending(limit=9)] == ["batch_1"]
        await store.finish_batch(claim, at=START)
        assert await store.list_ending(limit=9) == []

    async def test_a_cancelling_batch_has_to_end_immediately(self, store: Store) -> None:
        await planned(store)
        await store.create_batch(a_batch("batch_2", created_at=START + 1))
        cancelled = [
            await store.cancel_batch(TENANT, name, at=START) for name in ("batch_1", "batch_2")
        ]
        assert await store.list_ending(limit=9) == cancelled
        claim = (await claim_planning(store)).claim
        await store.end_unplanned(claim, problems=[], at=START)
        assert await store.list_ending(limit=9) == cancelled[:1]

    async def test_batches_are_old_by_their_end(self, store: Store, clock: ManualClock) -> None:
        await planned(store, a_batch("batch_1", tenant="tenant-two"))
        await run_to_end(store, at=START + 9)
        for number, at in ((2, 5.0), (3, 7.0)):
            await store.create_batch(a_batch(f"batch_{number}"))
            await store.cancel_batch(TENANT, f"batch_{number}", at=START + 1)
            claim = (await claim_planning(store)).claim
            await store.end_unplanned(claim, problems=[], at=START + at)
        await store.create_batch(a_batch("batch_4"))
        old = [
            OldBatch(batch_id="batch_2", tenant=TENANT, ended_at=START + 5),
            OldBatch(batch_id="batch_3", tenant=TENANT, ended_at=START + 7),
            OldBatch(batch_id="batch_1", tenant="tenant-two", ended_at=START + 9),
        ]
        clock.turn(9)
        assert await store.list_old_batches(ended_seconds=0, limit=3) == old
        assert await store.list_old_batches(ended_seconds=0, limit=2) == old[:2]
        assert await store.list_old_batches(ended_seconds=2, limit=9) == old[:2]
        assert await store.list_old_batches(ended_seconds=4.25, limit=9) == []
        clock.turn(0.25)
        assert await store.list_old_batches(ended_seconds=4.25, limit=9) == old[:1]

    async def test_only_terminal_batches_are_dropped(self, store: Store) -> None:
        await store.create_batch(a_batch("batch_0", idempotency_key="k", created_at=START - 1))
        planning = (await claim_planning(store)).claim
        await planned(store, a_batch("batch_1", idempotency_key="key"))
        await planned(store, a_batch("batch_2"))
        await run_to_end(store)
        ids = ["batch_0", "batch_1", "batch_1", "batch_2", "batch_x"]
        assert await store.drop_batches(ids) == 1
        assert await store.drop_batches(ids) == 0
        assert await store.drop_batches([]) == 0
        assert set((await store.get_states(ids)).by_id) == {"batch_0", "batch_2"}
        await refusal(store.get_batch(TENANT, "batch_1"), NotFound)
        await refusal(store.list_batches(TENANT, after="batch_1", limit=1), NotFound)
        assert await store.get_shards("batch_1") == []
        assert len(await store.get_shards("batch_2")) == 1
        assert await store.renew([planning], lease_seconds=LEASE) == []

    async def test_its_key_may_be_used_again(self, store: Store) -> None:
        await planned(store, a_batch(idempotency_key="key"))
        await run_to_end(store)
        await store.drop_batches(["batch_1"])
        again = a_batch("batch_2", idempotency_key="key")
        assert await store.create_batch(again) == again

    async def test_result_files_outlive_their_batch(self, store: Store) -> None:
        await planned(store)
        await run_to_end(store)
        kept = await store.get_parts(TENANT, OUTPUT)
        await store.drop_batches(["batch_1"])
        assert await store.get_parts(TENANT, OUTPUT) == kept
        await store.delete_file(TENANT, OUTPUT)
        assert await unused(store) == [OUTPUT]

    async def test_late_calls_on_a_dropped_batch_are_refused(self, store: Store) -> None:
        await store.create_batch(a_batch())
        planning = (await claim_planning(store)).claim
        await store.plan_batch(planning, a_plan("batch_1", [("m", 1)]), at=START)
        await begin_writer(store)
        claimed = await claim_shard(store)
        commit = a_commit(result(claimed, [0]))
        await store.commit(commit)
        finalizing = (await claim_finalizing(store)).claim
        await store.finish_batch(finalizing, at=START)
        await store.drop_batches(["batch_1"])
        assert await store.commit(commit) == [Verdict.STALE]
        await refusal(store.finish_batch(finalizing, at=START), ClaimLost)
        plan = a_plan("batch_1", [("m", 1)])
        await refusal(store.plan_batch(planning, plan, at=START), ClaimLost)
        await refusal(store.end_unplanned(planning, problems=[], at=START), ClaimLost)
        units = [claim.unit for claim in (planning, claimed.claim, finalizing)]
        claims = [planning, claimed.claim, finalizing]
        assert await store.renew(claims, lease_seconds=LEASE) == units
        await store.hand_back(claims)
        await begin_writer(store)
        assert await store.commit(commit) == [Verdict.STALE]


class PurgeContract:
    """The contract of `purge`."""

    async def test_released_files_are_purged_with_their_uploads(
        self, store: Store, clock: ManualClock
    ) -> None:
        for file_id in ("file-a", "file-b"):
            await upload(store, file_id)
        file = await upload(store, "file-c")
        for file_id in ("file-a", "file-b"):
            await store.delete_file(TENANT, file_id)
        await store.release_files(["file-a"], keep_seconds=0)
        clock.turn(0.75)
        assert await store.purge(age_seconds=1, limit=9) == Purged()
        clock.turn(0.25)
        assert await store.purge(age_seconds=1, limit=9) == Purged(files=1, uploads=1)
        assert await store.purge(age_seconds=1, limit=9) == Purged()
        after = store.list_files(TENANT, after="file-a", limit=1, ascending=True, purpose=None)
        await refusal(after, NotFound)
        page = await store.list_files(TENANT, after="file-b", limit=9, ascending=True, purpose=None)
        assert page.items == (file,)
        await refusal(store.finish_upload("upload-file-a", file, [INPUT]), ClaimLost)

    async def test_a_file_waits_for_the_youngest_of_its_uploads(
        self, store: Store, clock: ManualClock
    ) -> None:
        await upload(store)
        await store.begin_upload("u", tenant=TENANT, blob="uploads/u", at=START + 5)
        new = [Part(blob="uploads/u", offset=0, length=INPUT.length)]
        assert await store.swap_parts("u", "file-in", old=[INPUT], new=new, keep_seconds=0)
        await store.delete_file(TENANT, "file-in")
        await store.release_files(["file-in"], keep_seconds=0)
        clock.turn(6)
        assert await store.purge(age_seconds=2, limit=9) == Purged()
        assert await store.purge(age_seconds=1, limit=9) == Purged(files=1, uploads=2)

    async def test_abandoned_uploads_are_purged_and_pending_ones_are_not(
        self, store: Store
    ) -> None:
        for upload_id in ("u", "v", "w"):
            await store.begin_upload(
                upload_id, tenant=TENANT, blob=f"uploads/{upload_id}", at=START
            )
        await store.abandon_upload("u")
        await store.abandon_upload("v")
        assert await store.purge(age_seconds=1, limit=9) == Purged()
        assert await store.purge(age_seconds=0, limit=9) == Purged(uploads=2)
        await upload(store, "file-in")
        assert await store.purge(age_seconds=0, limit=9) == Purged()
        assert await store.abandon_upload("w")
        assert await store.purge(age_seconds=0, limit=9) == Purged(uploads=1)

    async def test_a_limit_is_kept(self, store: Store) -> None:
        for number in range(3):
            await upload(store, f"file-{number}")
            await store.delete_file(TENANT, f"file-{number}")
            await store.begin_upload(f"u{number}", tenant=TENANT, blob="uploads/u", at=START)
            await store.abandon_upload(f"u{number}")
        files = [f"file-{number}" for number in range(3)]
        await store.release_files(files, keep_seconds=0)
        assert await store.purge(age_seconds=0, limit=2) == Purged(files=2, uploads=4)
        assert await store.purge(age_seconds=0, limit=2) == Purged(files=1, uploads=2)
