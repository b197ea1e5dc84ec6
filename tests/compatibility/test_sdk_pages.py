"""Lists: the SDK walks hundreds of files and batches, and meets each exactly once."""

from collections.abc import AsyncIterator, Sequence

import openai
import pytest

from testkit.servers.api import ApiWorld, served
from testkit.users.sdk import SdkUser

COUNT = 250
LINE = b'{"custom_id":"a"}'


@pytest.fixture
async def user() -> AsyncIterator[SdkUser]:
    # The clock stands still: every object has the same `created_at`, the hardest case for a cursor.
    async with (
        served(ApiWorld()) as world,
        openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="unused") as client,
    ):
        yield SdkUser(client, world)


async def upload_many(user: SdkUser, count: int) -> list[str]:
    return [await user.upload(LINE) for _ in range(count)]


def pages_asked(user: SdkUser, path: str) -> int:
    return user.world.asked.count(f"GET {path}")


def assert_each_once(found: Sequence[str], made: Sequence[str]) -> None:
    assert len(found) == len(made)
    assert set(found) == set(made)


async def test_250_batches_are_walked(user: SdkUser) -> None:
    file_id = await user.upload(LINE)
    made = [(await user.create(file_id)).id for _ in range(COUNT)]
    for limit, pages in ((100, 3), (50, 5), (7, 36)):
        before = pages_asked(user, "/v1/batches")
        found = [batch.id async for batch in user.client.batches.list(limit=limit)]
        assert_each_once(found, made)
        assert pages_asked(user, "/v1/batches") - before == pages
    # Without a limit there are 20 on a page.
    before = pages_asked(user, "/v1/batches")
    assert_each_once([batch.id async for batch in user.client.batches.list()], made)
    assert pages_asked(user, "/v1/batches") - before == 13


async def test_250_files_are_walked_both_ways(user: SdkUser) -> None:
    made = await upload_many(user, COUNT)
    for limit, pages in ((10_000, 1), (100, 3), (7, 36)):
        before = pages_asked(user, "/v1/files")
        down = [file.id async for file in user.client.files.list(limit=limit)]
        assert_each_once(down, made)
        assert pages_asked(user, "/v1/files") - before == pages
        up = [file.id async for file in user.client.files.list(limit=limit, order="asc")]
        assert up == down[::-1]
    # Without a limit, all of them are on one page.
    page = await user.client.files.list()
    assert len(page.data) == COUNT
    assert page.has_more is False


async def test_files_can_be_deleted_while_they_are_walked(user: SdkUser) -> None:
    made = await upload_many(user, 25)
    deleted = []
    async for file in user.client.files.list(limit=10):
        await user.client.files.delete(file.id)
        deleted.append(file.id)
    assert_each_once(deleted, made)
    assert (await user.client.files.list()).data == []


async def test_what_comes_meanwhile_disturbs_no_walk(user: SdkUser) -> None:
    made = await upload_many(user, 30)
    found = []
    async for file in user.client.files.list(limit=10):
        found.append(file.id)
        await user.upload(LINE)
    assert set(made) <= set(found)
    assert len(set(found)) == len(found)


async def test_a_page_says_where_it_begins_and_ends(user: SdkUser) -> None:
    file_id = await user.upload(LINE)
    made = [(await user.create(file_id)).id for _ in range(3)]
    page = await user.client.batches.list(limit=2)
    ids = [batch.id for batch in page.data]
    shown = page.to_dict()
    assert shown["object"] == "list"
    assert (shown["first_id"], shown["last_id"], shown["has_more"]) == (ids[0], ids[1], True)
    last = await user.client.batches.list(limit=1, after=ids[1])
    assert last.has_more is False
    assert_each_once([*ids, *(batch.id for batch in last.data)], made)
    beyond = (await user.client.batches.list(after=last.data[0].id)).to_dict()
    assert beyond == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_limits_hold_at_their_bounds(user: SdkUser) -> None:
    for limit in (1, 10_000):
        assert (await user.client.files.list(limit=limit)).data == []
    for limit in (1, 100):
        assert (await user.client.batches.list(limit=limit)).data == []
    low, high = "integer_below_min_value", "integer_above_max_value"
    for limit, code in ((0, low), (-1, low), (10_001, high)):
        with pytest.raises(openai.BadRequestError) as caught:
            await user.client.files.list(limit=limit)
        assert (caught.value.param, caught.value.code) == ("limit", code)
    for limit, code in ((0, low), (101, high)):
        with pytest.raises(openai.BadRequestError) as caught:
            await user.client.batches.list(limit=limit)
        assert (caught.value.param, caught.value.code) == ("limit", code)


async def test_a_wrong_question_is_refused(user: SdkUser) -> None:
    questions = [
        ("limit", "many", "invalid_type"),
        ("limit", "1.5", "invalid_type"),
        ("limit", "9" * 30, "integer_above_max_value"),
        ("order", "up", "invalid_value"),
        ("purpose", "fun", "invalid_value"),
    ]
    for param, value, code in questions:
        with pytest.raises(openai.BadRequestError) as caught:
            await user.client.files.list(extra_query={param: value})
        assert (caught.value.param, caught.value.code) == (param, code), value


async def test_an_unknown_cursor_is_reported(user: SdkUser) -> None:
    await user.create(await user.upload(LINE))
    for after in ("file-unknown", "batch_unknown", "17", "no id at all"):
        with pytest.raises(openai.NotFoundError) as caught:
            await user.client.files.list(after=after)
        assert caught.value.param == "after"
        with pytest.raises(openai.NotFoundError) as caught:
            await user.client.batches.list(after=after)
        assert caught.value.param == "after"
