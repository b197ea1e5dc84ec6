"""The contract of every ledger: uploads and files. See `stores` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

from tidegate.domain.errors import ClaimLost, Conflict, NotFound
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import Page
from tidegate.domain.shard import Verdict
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    INPUT,
    START,
    TENANT,
    ManualClock,
    a_commit,
    claim_shard,
    planned,
    refusal,
    result,
    upload,
)


class OpenContract:
    """What every open ledger can say of itself."""

    async def test_check_passes_on_a_working_ledger(self, store: Store) -> None:
        await store.check()
        await store.check()


class UploadContract:
    """The contract of `begin_upload`, `finish_upload` and `abandon_upload`."""

    async def test_a_finished_upload_is_a_file_with_its_parts(self, store: Store) -> None:
        file = await upload(store)
        assert await store.get_file(TENANT, file.id) == file
        assert await store.get_parts(TENANT, file.id) == (file, (INPUT,))

    async def test_every_field_of_a_file_comes_back(self, store: Store) -> None:
        file = File(
            id="file-x",
            tenant=TENANT,
            filename='späße "2".jsonl',
            purpose=Purpose.FINE_TUNE,
            bytes=7,
            created_at=START + 0.125,
            expires_at=START + 77.5,
        )
        parts = (Part(blob="a", offset=5, length=3), Part(blob="b", offset=0, length=4))
        await store.begin_upload("u", tenant=TENANT, blob="a", at=START)
        assert await store.finish_upload("u", file, parts) == file
        assert await store.get_parts(TENANT, "file-x") == (file, parts)

    async def test_an_empty_file_has_no_parts(self, store: Store) -> None:
        file = File(
            id="file-empty",
            tenant=TENANT,
            filename="empty",
            purpose=Purpose.VISION,
            bytes=0,
            created_at=START,
        )
        await store.begin_upload("u", tenant=TENANT, blob="a", at=START)
        await store.finish_upload("u", file, [])
        assert await store.get_parts(TENANT, file.id) == (file, ())

    async def test_slices_that_touch_become_one(self, store: Store) -> None:
        file = File(
            id="file-x",
            tenant=TENANT,
            filename="x",
            purpose=Purpose.BATCH,
            bytes=6,
            created_at=START,
        )
        await store.begin_upload("u", tenant=TENANT, blob="a", at=START)
        parts = [
            Part(blob="a", offset=0, length=2),
            Part(blob="a", offset=2, length=3),
            Part(blob="b", offset=5, length=1),
        ]
        await store.finish_upload("u", file, parts)
        _, kept = await store.get_parts(TENANT, file.id)
        assert kept == (Part(blob="a", offset=0, length=5), Part(blob="b", offset=5, length=1))

    async def test_begin_and_finish_may_be_repeated(self, store: Store) -> None:
        file = await upload(store)
        assert await upload(store) == file
        page = await everything(store)
        assert page.items == (file,)
        assert await store.get_parts(TENANT, file.id) == (file, (INPUT,))

    async def test_a_repeated_finish_answers_even_when_the_file_is_gone(self, store: Store) -> None:
        file = await upload(store)
        await store.delete_file(TENANT, file.id)
        assert await store.finish_upload(f"upload-{file.id}", file, [INPUT]) == file
        await refusal(store.get_file(TENANT, file.id), NotFound)

    async def test_what_was_never_begun_cannot_be_finished(self, store: Store) -> None:
        file = await upload(store)
        await refusal(store.finish_upload("unknown", file, [INPUT]), ClaimLost)

    async def test_an_abandoned_upload_stays_fenced(self, store: Store) -> None:
        await store.begin_upload("upload-file-in", tenant=TENANT, blob=INPUT.blob, at=START)
        assert await store.abandon_upload("upload-file-in")
        assert await store.abandon_upload("upload-file-in")
        await refusal(upload(store), ClaimLost)
        await refusal(store.get_file(TENANT, "file-in"), NotFound)

    async def test_a_finished_upload_cannot_be_abandoned(self, store: Store) -> None:
        file = await upload(store)
        assert not await store.abandon_upload("upload-file-in")
        assert await store.get_file(TENANT, file.id) == file

    async def test_an_unknown_upload_counts_as_abandoned(self, store: Store) -> None:
        assert await store.abandon_upload("never-begun")


class GetFileContract:
    """The contract of `get_file` and `get_parts`."""

    async def test_an_unknown_file_is_named_in_the_error(self, store: Store) -> None:
        error = await refusal(store.get_file(TENANT, "file-xyz"), NotFound)
        assert error.message == "No such File object: file-xyz"
        assert error.param == "id"
        await refusal(store.get_parts(TENANT, "file-xyz"), NotFound)

    async def test_another_tenant_sees_nothing(self, store: Store) -> None:
        file = await upload(store)
        await refusal(store.get_file("tenant-two", file.id), NotFound)
        await refusal(store.get_parts("tenant-two", file.id), NotFound)
        await refusal(store.delete_file("tenant-two", file.id), NotFound)
        assert await store.get_file(TENANT, file.id) == file

    async def test_a_file_is_gone_at_its_expiry_and_not_before(
        self, store: Store, clock: ManualClock
    ) -> None:
        file = await upload(store, expires_at=START + 60)
        clock.turn(59.5)
        assert await store.get_file(TENANT, file.id) == file
        clock.turn(0.5)
        await refusal(store.get_file(TENANT, file.id), NotFound)
        await refusal(store.get_parts(TENANT, file.id), NotFound)
        await refusal(store.delete_file(TENANT, file.id), NotFound)
        assert (await everything(store)).items == ()


class DeleteFileContract:
    """The contract of `delete_file`."""

    async def test_a_deleted_file_is_hidden_immediately(self, store: Store) -> None:
        file = await upload(store)
        await store.delete_file(TENANT, file.id)
        await refusal(store.get_file(TENANT, file.id), NotFound)
        await refusal(store.get_parts(TENANT, file.id), NotFound)
        await refusal(store.delete_file(TENANT, file.id), NotFound)
        assert (await everything(store)).items == ()

    async def test_a_growing_file_cannot_be_deleted(self, store: Store) -> None:
        await planned(store)
        part = Part(blob="results", offset=0, length=10)
        commit = a_commit(result(await claim_shard(store), [0], output=part))
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        error = await refusal(store.delete_file(TENANT, "file-batch_1-output"), Conflict)
        assert "batch_1" in error.message
        await store.get_file(TENANT, "file-batch_1-output")


class ListFilesContract:
    """The contract of `list_files`."""

    async def test_nothing_is_an_empty_page(self, store: Store) -> None:
        page = await everything(store)
        assert page.items == ()
        assert not page.has_more

    async def test_files_come_by_age_and_then_by_id(self, store: Store) -> None:
        for file_id, age in [("b", 2), ("c", 1), ("a", 2), ("d", 0)]:
            await upload(store, file_id, created_at=START - age)
        assert ids(await everything(store)) == ["d", "c", "b", "a"]
        assert ids(await everything(store, ascending=True)) == ["a", "b", "c", "d"]

    async def test_pages_join_without_gap_or_repeat(self, store: Store) -> None:
        for number in range(5):
            await upload(store, f"file-{number}", created_at=START + number // 2)
        for ascending in (True, False):
            whole = ids(await everything(store, ascending=ascending))
            assert len(whole) == 5
            for limit in (1, 2, 3):
                assert await walk(store, limit, ascending=ascending) == whole

    async def test_has_more_is_exact(self, store: Store) -> None:
        for number in range(3):
            await upload(store, f"file-{number}", created_at=START + number)
        assert (await everything(store, limit=2)).has_more
        assert not (await everything(store, limit=3)).has_more
        assert not (await everything(store, limit=2, after="file-2")).has_more
        # What is hidden does not count as more.
        await store.delete_file(TENANT, "file-0")
        assert not (await everything(store, limit=2)).has_more

    async def test_a_deleted_or_expired_file_still_marks_its_place(
        self, store: Store, clock: ManualClock
    ) -> None:
        for number in range(4):
            expires_at = START + 10 if number == 1 else None
            await upload(store, f"file-{number}", created_at=START + number, expires_at=expires_at)
        await store.delete_file(TENANT, "file-2")
        clock.turn(10)
        assert ids(await everything(store, after="file-2")) == ["file-0"]
        assert ids(await everything(store, after="file-1")) == ["file-0"]
        assert ids(await everything(store, after="file-1", ascending=True)) == ["file-3"]

    async def test_an_unknown_cursor_is_refused(self, store: Store) -> None:
        await upload(store)
        error = await refusal(everything(store, after="file-unknown"), NotFound)
        assert error.param == "after"
        assert "file-unknown" in error.message

    async def test_another_tenant_can_neither_list_nor_use_the_cursor(self, store: Store) -> None:
        await upload(store)
        assert (await everything(store, tenant="tenant-two")).items == ()
        await refusal(everything(store, tenant="tenant-two", after="file-in"), NotFound)

    async def test_a_purpose_selects(self, store: Store) -> None:
        await upload(store, "a", purpose=Purpose.BATCH)
        await upload(store, "b", purpose=Purpose.VISION)
        assert ids(await everything(store, purpose=Purpose.VISION)) == ["b"]
        assert ids(await everything(store, purpose=Purpose.EVALS)) == []


async def everything(
    store: Store,
    *,
    tenant: str = TENANT,
    after: str | None = None,
    limit: int = 100,
    ascending: bool = False,
    purpose: Purpose | None = None,
) -> Page[File]:
    """List files, all of them by default."""
    return await store.list_files(
        tenant, after=after, limit=limit, ascending=ascending, purpose=purpose
    )


async def walk(store: Store, limit: int, *, ascending: bool) -> list[str]:
    """Return the ids of all files, fetched page by page."""
    seen: list[str] = []
    page = await everything(store, limit=limit, ascending=ascending)
    while page.items:
        seen += ids(page)
        assert page.has_more == (len(page.items) == limit and len(seen) < 5)
        page = await everything(store, limit=limit, ascending=ascending, after=seen[-1])
    return seen


def ids(page: Page[File]) -> list[str]:
    """Return the ids on a page."""
    return [file.id for file in page.items]
