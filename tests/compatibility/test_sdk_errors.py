"""Each error class of the OpenAI SDK, with the words and codes that the contract names."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from openai.types import Batch
from typing_extensions import override

from testkit.servers.api import ApiWorld, FixedModels, served
from testkit.users.sdk import SdkUser
from tidegate.api.settings import Settings
from tidegate.application.settings import Settings as DeskSettings
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain import batch as domain
from tidegate.domain.errors import ConnectFailed, StoreUnavailable
from tidegate.stores.memory import MemoryStore

LINE = b'{"custom_id":"a"}'
GOOD: dict[str, object] = {
    "input_file_id": "file-x",
    "endpoint": "/v1/embeddings",
    "completion_window": "24h",
}


@asynccontextmanager
async def user_of(world: ApiWorld, *, key: str = "unused") -> AsyncIterator[SdkUser]:
    async with served(world), openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key) as client:
        yield SdkUser(client, world)


@pytest.fixture
async def user() -> AsyncIterator[SdkUser]:
    async with user_of(ApiWorld()) as made:
        yield made


async def create(user: SdkUser, body: object) -> Batch:
    """Send a body as it is, past the types of the SDK."""
    return await user.client.post("/batches", body=body, cast_to=Batch)


def assert_error(
    error: openai.APIStatusError, message: str, *, param: str | None, code: str | None
) -> None:
    assert message in error.message
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert error.response.headers["x-request-id"] == error.request_id


async def test_a_missing_field_is_named(user: SdkUser) -> None:
    for name in GOOD:
        with pytest.raises(openai.BadRequestError) as caught:
            await create(user, {key: value for key, value in GOOD.items() if key != name})
        message = f"Missing required parameter: '{name}'."
        assert_error(caught.value, message, param=name, code="missing_required_parameter")


async def test_a_wrong_endpoint_is_answered_with_those_there_are() -> None:
    batch_api = DeskSettings(extra_endpoints=("/v1/rerank",))
    async with user_of(ApiWorld(settings=Settings(batch_api=batch_api))) as user:
        with pytest.raises(openai.BadRequestError) as caught:
            await create(user, GOOD | {"endpoint": "/v1/nope"})
        message = (
            "Invalid value: '/v1/nope'. Supported values are: '/v1/chat/completions', "
            "'/v1/completions', '/v1/embeddings', '/v1/responses' and '/v1/rerank'."
        )
        assert_error(caught.value, message, param="endpoint", code="invalid_value")
        assert (await create(user, GOOD | {"endpoint": "/v1/rerank"})).endpoint == "/v1/rerank"


async def test_a_wrong_window_is_answered_with_the_allowed_ones(user: SdkUser) -> None:
    for window in ("1y", "", "24", "59s", "15d", "-1h", "14d1s", "h", "1h 30m"):
        with pytest.raises(openai.BadRequestError) as caught:
            await create(user, GOOD | {"completion_window": window})
        error = caught.value
        assert_error(error, "from 1m to 14d", param="completion_window", code="invalid_value")


async def test_other_windows_than_a_day_are_kept(user: SdkUser) -> None:
    for window, seconds in (("1m", 60), ("1h30m", 5_400), ("7d", 604_800), ("14d", 1_209_600)):
        batch = await create(user, GOOD | {"completion_window": window})
        assert batch.completion_window == window
        assert batch.expires_at == batch.created_at + seconds


MANY = {str(number): "v" for number in range(17)}
WRONG: list[tuple[dict[str, object], str, str]] = [
    ({"metadata": "text"}, "metadata", "invalid_type"),
    ({"metadata": ["a"]}, "metadata", "invalid_type"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": None}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": {"b": "c"}}}, "metadata.a", "invalid_type"),
    ({"metadata": MANY}, "metadata", "object_above_max_properties"),
    ({"metadata": {"k" * 65: "v"}}, "metadata", "string_above_max_length"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
    ({"input_file_id": 7}, "input_file_id", "invalid_type"),
    ({"input_file_id": None}, "input_file_id", "invalid_type"),
    ({"endpoint": ["/v1/embeddings"]}, "endpoint", "invalid_type"),
    ({"completion_window": 24}, "completion_window", "invalid_type"),
    ({"completion_window": True}, "completion_window", "invalid_type"),
    ({"output_expires_after": 3_600}, "output_expires_after", "invalid_type"),
    (
        {"output_expires_after": {"seconds": 3_600}},
        "output_expires_after.anchor",
        "missing_required_parameter",
    ),
    (
        {"output_expires_after": {"anchor": "created_at"}},
        "output_expires_after.seconds",
        "missing_required_parameter",
    ),
    (
        {"output_expires_after": {"anchor": "last_active_at", "seconds": 3_600}},
        "output_expires_after.anchor",
        "invalid_value",
    ),
    (
        {"output_expires_after": {"anchor": "created_at", "seconds": 3_599}},
        "output_expires_after.seconds",
        "integer_below_min_value",
    ),
    (
        {"output_expires_after": {"anchor": "created_at", "seconds": 2**70}},
        "output_expires_after.seconds",
        "integer_above_max_value",
    ),
    (
        {"output_expires_after": {"anchor": "created_at", "seconds": "3600"}},
        "output_expires_after.seconds",
        "invalid_type",
    ),
]


async def test_a_wrong_value_is_named_with_its_place(user: SdkUser) -> None:
    for change, param, code in WRONG:
        with pytest.raises(openai.BadRequestError) as caught:
            await create(user, GOOD | change)
        word = "Missing required" if code.startswith("missing") else "Invalid"
        assert_error(caught.value, word, param=param, code=code)
    assert (await user.client.batches.list()).data == []


async def test_keys_that_nobody_knows_are_passed_over(user: SdkUser) -> None:
    batch = await create(user, GOOD | {"aibrix": {"a": 1}, "priority": 2**70})
    assert batch.status == "validating"


async def test_a_body_that_is_no_json_object_is_refused(user: SdkUser) -> None:
    url = f"{user.world.url}/v1/batches"
    bodies = [b"", b"{", b"[]", b"null", b'"a"', b"\xff\xfe", b'{"a":\xff}', b"[" * 100_000]
    bodies += [b'{"metadata":' * 50_000, b'{"endpoint":"\\ud800"}', b"{}{}", b"\x00"]
    async with httpx.AsyncClient() as client:
        for body in bodies:
            reply = await client.post(url, content=body)
            assert reply.status_code == 400, (body[:40], reply.text)
            assert reply.json()["error"]["type"] == "invalid_request_error"
    assert user.world.log.events == []


async def test_a_body_above_its_bound_is_refused(user: SdkUser) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await create(user, GOOD | {"pad": "x" * 2**20})
    assert caught.value.status_code == 413
    assert_error(caught.value, "larger than 1048576 bytes", param=None, code=None)


async def test_a_file_above_its_bound_is_refused() -> None:
    settings = Settings(batch_api=DeskSettings(file_bytes_max=len(LINE)))
    async with user_of(ApiWorld(settings=settings)) as user:
        await user.upload(LINE)
        with pytest.raises(openai.APIStatusError) as caught:
            await user.upload(LINE + b"\n")
        assert caught.value.status_code == 413
        assert_error(caught.value, f"larger than {len(LINE)} bytes", param="file", code=None)


async def test_a_file_that_is_no_jsonl_is_refused(user: SdkUser) -> None:
    for data in (b"hello", b"", b"\n\n", b"[1]", b'"a"', b'{"a":1', b"a,b\n1,2\n"):
        with pytest.raises(openai.BadRequestError) as caught:
            await user.upload(data)
        message = "Invalid file format for Batch API. Must be .jsonl"
        assert_error(caught.value, message, param=None, code=None)
    # For any other purpose every content will do.
    file = await user.client.files.create(file=b"hello", purpose="user_data")
    assert file.purpose == "user_data"
    with pytest.raises(openai.BadRequestError, match="purpose 'user_data'"):
        await user.create(file.id)


async def test_what_does_not_exist_is_not_found(user: SdkUser) -> None:
    client = user.client
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            await call("file-nowhere")
        assert_error(caught.value, "No such File object: file-nowhere", param="id", code=None)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.batches.retrieve("batch_nowhere")
    assert "No batch found with id 'batch_nowhere'." in caught.value.message
    assert caught.value.request_id is not None


async def test_without_a_known_key_every_request_is_refused() -> None:
    settings = Settings(keys={hashlib.sha256(b"secret-one").hexdigest(): "one"})
    message = "Incorrect API key provided."
    for key in ("secret-two", "secret-one2", "one"):
        async with user_of(ApiWorld(settings=settings), key=key) as user:
            for call in (user.client.files.list, user.client.batches.list, user.client.models.list):
                with pytest.raises(openai.AuthenticationError) as caught:
                    await call()
                assert_error(caught.value, message, param=None, code="invalid_api_key")
            assert len(user.world.asked) == 3, "what a retry can't fix is not retried"
    async with user_of(ApiWorld(settings=settings), key="secret-one") as user:
        assert (await user.client.files.list()).data == []


async def test_a_key_used_for_another_request_is_a_conflict(user: SdkUser) -> None:
    first = await user.client.post(
        "/batches", body=GOOD, cast_to=Batch, options={"headers": {"Idempotency-Key": "k"}}
    )
    again = await user.client.post(
        "/batches", body=GOOD, cast_to=Batch, options={"headers": {"Idempotency-Key": "k"}}
    )
    assert again.id == first.id
    with pytest.raises(openai.ConflictError) as caught:
        await user.client.post(
            "/batches",
            body=GOOD | {"completion_window": "1h"},
            cast_to=Batch,
            options={"headers": {"Idempotency-Key": "k"}},
        )
    assert_error(caught.value, "Idempotency-Key", param=None, code=None)
    assert user.world.asked.count("POST /v1/batches") == 3, "it was not retried"


class _AbsentStore(MemoryStore):
    """A ledger that gives no answer for the first `absent` looks at a batch."""

    absent = 0

    @override
    async def get_batch(self, tenant: str, batch_id: str) -> domain.Batch:
        if self.absent:
            self.absent -= 1
            raise StoreUnavailable("the password is hunter2")
        return await super().get_batch(tenant, batch_id)


async def test_a_ledger_that_is_away_is_an_error_of_the_server() -> None:
    world = ApiWorld()
    store = world.store = _AbsentStore(world.clock)
    async with user_of(world) as user:
        batch = await create(user, GOOD)
        store.absent = 1
        with pytest.raises(openai.InternalServerError) as caught:
            await user.client.with_options(max_retries=0).batches.retrieve(batch.id)
        error = caught.value
        assert (error.status_code, error.type) == (503, "server_error")
        assert error.response.headers["retry-after"] == "2"
        assert "hunter2" not in error.response.text
        assert [event for event, _ in world.log.events] == ["store_unavailable"]
        assert world.log.events[0][1]["request_id"] == error.request_id
        # For a moment only, users of the SDK do not even see it.
        store.absent = 1
        assert await user.client.batches.retrieve(batch.id) == batch


async def test_a_full_disk_is_reported_once() -> None:
    world = ApiWorld(blobs=MemoryBlobs(bytes_max=10))
    async with user_of(world) as user:
        with pytest.raises(openai.InternalServerError) as caught:
            await user.upload(LINE)
        assert (caught.value.status_code, caught.value.type) == (507, "server_error")
        assert "no room left" in caught.value.message
        assert world.asked == ["POST /v1/files"], "it was not retried"
        assert await world.blobs.list_names("") == []


class _NoModels(FixedModels):
    @override
    async def list_models(self) -> tuple[str, ...]:
        raise ConnectFailed("nobody at 10.0.0.1")


async def test_a_model_server_that_is_away_is_an_error_of_the_server() -> None:
    async with user_of(ApiWorld(models=_NoModels())) as user:
        with pytest.raises(openai.InternalServerError) as caught:
            await user.client.with_options(max_retries=0).models.list()
        assert caught.value.status_code == 503
        assert "10.0.0.1" not in caught.value.response.text
