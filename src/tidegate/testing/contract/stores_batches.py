"""The contract of every ledger: batches as users see them. See `stores` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from dataclasses import replace

from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import Conflict, NotFound
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    INPUT,
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    claim_finalizing,
    claim_planning,
    planned,
    refusal,
    run_whole,
    upload,
)


class CreateBatchContract:
    """The contract of `create_batch`."""

    async def test_every_field_of_a_batch_comes_back(self, store: Store) -> None:
        batch = replace(
            a_batch(idempotency_key="key-ü", output_expires_seconds=3600),
            metadata={"z": "last first", "a": 'quote " and ü', "": ""},
            request_digest="digest",
            created_at=START + 0.001,
        )
        assert await store.create_batch(batch) == batch
        found = await store.get_batch(TENANT, batch.id)
        assert found == batch
        assert list((found.metadata or {}).items()) == list((batch.metadata or {}).items())

    async def test_empty_metadata_is_not_none(self, store: Store) -> None:
        await store.create_batch(replace(a_batch(), metadata={}))
        assert (await store.get_batch(TENANT, "batch_1")).metadata == {}

    async def test_a_repeat_returns_the_stored_batch(self, store: Store) -> None:
        await store.create_batch(a_batch())
        moved = await store.cancel_batch(TENANT, "batch_1", at=START)
        assert await store.create_batch(a_batch()) == moved
        assert (await store.list_batches(TENANT, after=None, limit=10)).items == (moved,)

    async def test_an_idempotency_key_makes_one_batch(self, store: Store) -> None:
        first = await store.create_batch(a_batch("batch_1", idempotency_key="key"))
        assert await store.create_batch(a_batch("batch_2", idempotency_key="key")) == first
        await refusal(store.get_batch(TENANT, "batch_2"), NotFound)
        assert (await claim_planning(store)).batch == first
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None

    async def test_an_id_is_known_whatever_the_key(self, store: Store) -> None:
        first = await store.create_batch(a_batch())
        assert await store.create_batch(a_batch(idempotency_key="key")) == first
        other = await store.create_batch(a_batch("batch_2", idempotency_key="key"))
        assert other.id == "batch_2"

    async def test_concurrent_creates_with_one_key_agree(self, store: Store) -> None:
        batches = await asyncio.gather(
            *(
                store.create_batch(a_batch(f"batch_{number}", idempotency_key="key"))
                for number in range(20)
            )
        )
        assert len({batch.id for batch in batches}) == 1
        assert len((await store.list_batches(TENANT, after=None, limit=100)).items) == 1

    async def test_keys_of_two_tenants_do_not_meet(self, store: Store) -> None:
        await store.create_batch(a_batch("batch_1", idempotency_key="key"))
        other = a_batch("batch_2", tenant="tenant-two", idempotency_key="key")
        assert await store.create_batch(other) == other

    async def test_batches_without_a_key_do_not_meet(self, store: Store) -> None:
        await store.create_batch(a_batch("batch_1"))
        assert (await store.create_batch(a_batch("batch_2"))).id == "batch_2"


class GetInputContract:
    """What `create_batch` holds and `get_input` returns (PROTOCOL 7)."""

    async def test_it_returns_the_parts_of_the_input(self, store: Store) -> None:
        await upload(store)
        await store.create_batch(a_batch())
        assert await store.get_input("batch_1") == (INPUT,)

    async def test_a_file_deleted_later_is_still_held(self, store: Store) -> None:
        await upload(store)
        await store.create_batch(a_batch())
        await store.delete_file(TENANT, "file-in")
        assert await store.get_input("batch_1") == (INPUT,)

    async def test_a_file_expired_later_is_still_held(
        self, store: Store, clock: ManualClock
    ) -> None:
        await upload(store, expires_at=START + 1)
        await store.create_batch(a_batch())
        clock.turn(2)
        assert await store.get_input("batch_1") == (INPUT,)

    async def test_a_file_that_could_not_be_seen_is_none(
        self, store: Store, clock: ManualClock
    ) -> None:
        await upload(store, "file-deleted")
        await store.delete_file(TENANT, "file-deleted")
        await upload(store, "file-expired", expires_at=START + 1)
        await upload(store, "file-unknown", tenant="tenant-two")
        clock.turn(1)
        for number, name in enumerate(["file-deleted", "file-expired", "file-unknown", "file-no"]):
            await store.create_batch(a_batch(f"batch_{number}", input_file_id=name))
            assert await store.get_input(f"batch_{number}") is None, name

    async def test_a_file_that_appears_later_is_not_held(self, store: Store) -> None:
        await store.create_batch(a_batch())
        await upload(store)
        await store.create_batch(a_batch())
        assert await store.get_input("batch_1") is None

    async def test_an_unknown_batch_holds_nothing(self, store: Store) -> None:
        assert await store.get_input("batch_unknown") is None


class GetBatchContract:
    """The contract of `get_batch` and `get_states`."""

    async def test_an_unknown_batch_is_named_in_the_error(self, store: Store) -> None:
        error = await refusal(store.get_batch(TENANT, "batch_x"), NotFound)
        assert error.message == "No batch found with id 'batch_x'."

    async def test_another_tenant_sees_nothing(self, store: Store) -> None:
        await store.create_batch(a_batch())
        await refusal(store.get_batch("tenant-two", "batch_1"), NotFound)
        await refusal(store.cancel_batch("tenant-two", "batch_1", at=START), NotFound)
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.VALIDATING

    async def test_states_are_told_of_every_tenant(self, store: Store) -> None:
        await store.create_batch(a_batch("batch_1"))
        await store.create_batch(a_batch("batch_2", tenant="tenant-two"))
        await store.cancel_batch("tenant-two", "batch_2", at=START)
        states = await store.get_states(["batch_2", "batch_unknown", "batch_1", "batch_1"])
        assert states.by_id == {"batch_1": Status.VALIDATING, "batch_2": Status.CANCELLING}
        assert list(states.by_id) == ["batch_2", "batch_1"]
        assert (await store.get_states([])).by_id == {}

    async def test_with_states_comes_the_time_of_the_ledger(
        self, store: Store, clock: ManualClock
    ) -> None:
        assert (await store.get_states([])).now == START
        clock.turn(1.5)
        assert (await store.get_states(["batch_unknown"])).now == START + 1.5


class ListBatchesContract:
    """The contract of `list_batches`."""

    async def test_pages_join_without_gap_or_repeat(self, store: Store) -> None:
        for number in range(5):
            await store.create_batch(a_batch(f"batch_{number}", created_at=START + number // 2))
        expected = ["batch_4", "batch_3", "batch_2", "batch_1", "batch_0"]
        for limit in (1, 2, 3, 5, 6):
            assert await walk(store, limit) == expected

    async def test_has_more_is_exact(self, store: Store) -> None:
        assert not (await store.list_batches(TENANT, after=None, limit=1)).has_more
        for number in range(3):
            await store.create_batch(a_batch(f"batch_{number}"))
        assert (await store.list_batches(TENANT, after=None, limit=2)).has_more
        assert not (await store.list_batches(TENANT, after=None, limit=3)).has_more
        assert not (await store.list_batches(TENANT, after="batch_1", limit=1)).has_more

    async def test_an_unknown_cursor_is_refused(self, store: Store) -> None:
        await store.create_batch(a_batch())
        for tenant, after in [(TENANT, "batch_x"), ("tenant-two", "batch_1")]:
            call = store.list_batches(tenant, after=after, limit=1)
            error = await refusal(call, NotFound)
            assert error.param == "after"
            assert after in error.message

    async def test_another_tenant_sees_nothing(self, store: Store) -> None:
        await store.create_batch(a_batch())
        assert (await store.list_batches("tenant-two", after=None, limit=1)).items == ()


class CancelBatchContract:
    """The contract of `cancel_batch` (PROTOCOL 16)."""

    async def test_a_live_batch_is_cancelling(self, store: Store) -> None:
        await store.create_batch(a_batch())
        batch = await store.cancel_batch(TENANT, "batch_1", at=START + 5)
        assert (batch.status, batch.cancelling_at, batch.version) == (
            Status.CANCELLING,
            START + 5,
            1,
        )
        assert await store.get_batch(TENANT, "batch_1") == batch

    async def test_a_repeat_changes_nothing(self, store: Store) -> None:
        await planned(store)
        first = await store.cancel_batch(TENANT, "batch_1", at=START + 5)
        assert await store.cancel_batch(TENANT, "batch_1", at=START + 9) == first
        assert first.version == 2

    async def test_an_unknown_batch_is_not_found(self, store: Store) -> None:
        await refusal(store.cancel_batch(TENANT, "batch_x", at=START), NotFound)

    async def test_finalizing_and_ended_batches_refuse(self, store: Store) -> None:
        await planned(store)
        await run_whole(store)
        await refusal(store.cancel_batch(TENANT, "batch_1", at=START), Conflict)
        claimed = await claim_finalizing(store)
        ended = await store.finish_batch(claimed.claim, at=START)
        await refusal(store.cancel_batch(TENANT, "batch_1", at=START), Conflict)
        assert await store.get_batch(TENANT, "batch_1") == ended

    async def test_a_cancelled_batch_answers_as_it_is(self, store: Store) -> None:
        await store.create_batch(a_batch())
        await store.cancel_batch(TENANT, "batch_1", at=START)
        claimed = await claim_planning(store)
        ended = await store.end_unplanned(claimed.claim, problems=[], at=START)
        assert ended.status is Status.CANCELLED
        assert await store.cancel_batch(TENANT, "batch_1", at=START) == ended


class NoteWaitingContract:
    """The contract of `note_waiting`."""

    async def test_a_reason_is_kept_and_taken_back(self, store: Store) -> None:
        before = await store.create_batch(a_batch())
        await store.note_waiting("batch_1", "The endpoint answers 503.")
        assert await store.get_batch(TENANT, "batch_1") == replace(
            before, waiting_for="The endpoint answers 503."
        )
        await store.note_waiting("batch_1", None)
        assert await store.get_batch(TENANT, "batch_1") == before

    async def test_an_unknown_batch_is_passed_over(self, store: Store) -> None:
        await store.note_waiting("batch_x", "It is not there.")

    async def test_an_ended_batch_waits_for_nothing(self, store: Store) -> None:
        await planned(store)
        await store.note_waiting("batch_1", "The endpoint answers 503.")
        await run_whole(store)
        ended = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        assert ended.waiting_for is None
        await store.note_waiting("batch_1", "Too late.")
        assert await store.get_batch(TENANT, "batch_1") == ended


async def walk(store: Store, limit: int) -> list[str]:
    """Return the ids of all batches, fetched page by page."""
    seen: list[Batch] = []
    page = await store.list_batches(TENANT, after=None, limit=limit)
    while page.items:
        seen += page.items
        assert page.has_more == (len(seen) < 5)
        page = await store.list_batches(TENANT, after=seen[-1].id, limit=limit)
    return [batch.id for batch in seen]
