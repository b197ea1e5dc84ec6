"""What a user may ask about batches, and what is shown while they run."""

import asyncio
import random
from contextlib import ExitStack

import pytest

from testkit.servers.api import FixedModels
from tidegate.access.principal import Principal
from tidegate.application.batches import cancel_batch, create_batch, list_batches, read_batch
from tidegate.application.content import (
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MIN,
    CHUNKS_BYTES_MAX,
    Content,
    Downloads,
)
from tidegate.application.context import Application
from tidegate.application.files import delete_file, list_files, open_content, read_file
from tidegate.application.models import list_models, read_model
from tidegate.application.settings import Settings
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Status
from tidegate.domain.errors import Conflict, NotFound, Refused
from tidegate.domain.file import File, Part, Purpose
from tidegate.pubsub.base import WORK, batch_topic
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import (
    START,
    ManualClock,
    a_batch,
    claim_finalizing,
    planned,
    run_whole,
    upload,
)
from tidegate.testing.ids import SeededIds
from tidegate.wire.batch_request import BatchRequest, ExpiresAfter

TENANT = "tenant-one"
CALLER = Principal(tenant=TENANT)
OUTPUT = "file-batch_1-output"


def make_app(settings: Settings | None = None) -> Application:
    clock = ManualClock()
    return Application(
        settings=settings or Settings(),
        store=MemoryStore(clock),
        blobs=MemoryBlobs(),
        pubsub=MemoryPubSub(),
        models=FixedModels("m", "n"),
        clock=clock,
        ids=SeededIds(random.Random(1)),
    )


def request(
    *,
    input_file_id: str = "file-in",
    endpoint: str = "/v1/embeddings",
    window: str = "1h",
    metadata: dict[str, str] | None = None,
    expiry: ExpiresAfter | None = None,
) -> BatchRequest:
    return BatchRequest(
        input_file_id=input_file_id,
        endpoint=endpoint,
        completion_window=window,
        metadata=metadata,
        output_expires_after=expiry,
    )


async def test_a_created_batch_is_recorded_and_announced() -> None:
    app = make_app()
    await upload(app.store)
    with app.pubsub.listen((WORK,)) as listener:
        batch = await create_batch(app, CALLER, request(metadata={"a": "b"}))
        assert await listener.wait(0) == {WORK}
    assert batch == await app.store.get_batch(TENANT, batch.id)
    assert batch.status is Status.VALIDATING
    assert (batch.created_at, batch.expires_at) == (START, START + 3_600)
    assert batch.metadata == {"a": "b"}
    assert batch.output_expires_seconds == 2_592_000
    assert await app.store.get_input(batch.id) is not None


async def test_the_results_may_go_earlier() -> None:
    expiry = ExpiresAfter(anchor="created_at", seconds=3_600)
    batch = await create_batch(make_app(), CALLER, request(expiry=expiry))
    assert batch.output_expires_seconds == 3_600


@pytest.mark.parametrize("file_id", ["file-nowhere", "", "no id at all", "x" * 256])
async def test_a_missing_input_is_reported_later(file_id: str) -> None:
    batch = await create_batch(make_app(), CALLER, request(input_file_id=file_id))
    assert batch.status is Status.VALIDATING


async def test_an_input_of_another_tenant_is_not_found() -> None:
    app = make_app()
    await upload(app.store, tenant="another", purpose=Purpose.EVALS)
    batch = await create_batch(app, CALLER, request())
    assert await app.store.get_input(batch.id) is None


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (request(endpoint="/v1/nothing"), "endpoint"),
        (request(window="1y"), "completion_window"),
        (request(metadata={"a": "b" * 513}), "metadata.a"),
        (
            request(expiry=ExpiresAfter(anchor="created_at", seconds=1)),
            "output_expires_after.seconds",
        ),
        (request(input_file_id="x" * 257), "input_file_id"),
        (request(input_file_id="a\0"), "input_file_id"),
    ],
)
async def test_a_wrong_request_is_refused(asked: BatchRequest, param: str) -> None:
    app = make_app()
    with pytest.raises(Refused) as caught:
        await create_batch(app, CALLER, asked)
    assert caught.value.param == param
    assert (await list_batches(app, CALLER)).items == ()


async def test_a_file_for_another_purpose_is_refused() -> None:
    app = make_app()
    await upload(app.store, purpose=Purpose.EVALS)
    with pytest.raises(Refused, match="has the purpose 'evals'") as caught:
        await create_batch(app, CALLER, request())
    assert caught.value.param == "input_file_id"


async def test_the_endpoints_are_listed() -> None:
    app = make_app(Settings(extra_endpoints=("/v1/rerank",)))
    with pytest.raises(Refused) as caught:
        await create_batch(app, CALLER, request(endpoint="/v1/x"))
    assert caught.value.message == (
        "Invalid value: '/v1/x'. Supported values are: '/v1/chat/completions', "
        "'/v1/completions', '/v1/embeddings', '/v1/responses' and '/v1/rerank'."
    )
    assert (await create_batch(app, CALLER, request(endpoint="/v1/rerank"))).id


async def test_the_same_key_gives_the_same_batch() -> None:
    app = make_app()
    first = await create_batch(
        app, CALLER, request(metadata={"a": "1", "b": "2"}), idempotency_key="k"
    )
    again = await create_batch(
        app, CALLER, request(metadata={"b": "2", "a": "1"}), idempotency_key="k"
    )
    assert again == first
    with pytest.raises(Conflict, match="Idempotency-Key"):
        await create_batch(app, CALLER, request(), idempotency_key="k")
    other = await create_batch(app, Principal(tenant="another"), request(), idempotency_key="k")
    assert other.id != first.id
    assert len((await list_batches(app, CALLER)).items) == 1


async def test_two_at_once_with_one_key_make_one_batch() -> None:
    app = make_app()
    made = await asyncio.gather(
        *(create_batch(app, CALLER, request(), idempotency_key="k") for _ in range(20))
    )
    assert len({batch.id for batch in made}) == 1


@pytest.mark.parametrize(("key", "fine"), [("k" * 255, True), ("k" * 256, False), ("é", False)])
async def test_a_key_is_short_and_plain(key: str, *, fine: bool) -> None:
    if fine:
        batch = await create_batch(make_app(), CALLER, request(), idempotency_key=key)
        assert batch.idempotency_key == key
    else:
        with pytest.raises(Refused, match="Idempotency-Key"):
            await create_batch(make_app(), CALLER, request(), idempotency_key=key)


async def test_a_cancel_is_announced_and_may_be_repeated() -> None:
    app = make_app()
    await app.store.create_batch(a_batch())
    with app.pubsub.listen((WORK, "batch/")) as listener:
        batch = await cancel_batch(app, CALLER, "batch_1")
        assert await listener.wait(0) == {WORK, batch_topic("batch_1")}
    assert batch.status is Status.CANCELLING
    assert await cancel_batch(app, CALLER, "batch_1") == batch


@pytest.mark.parametrize("batch_id", ["batch_2", "no id", "x" * 1_000, ""])
async def test_batches_that_are_not_there(batch_id: str) -> None:
    app = make_app()
    for call in (read_batch, cancel_batch):
        with pytest.raises(NotFound, match="No batch found with id"):
            await call(app, CALLER, batch_id)
    with pytest.raises(NotFound) as caught:
        await list_batches(app, CALLER, after=batch_id)
    assert caught.value.param == "after"


@pytest.mark.parametrize("file_id", ["file-x", "no id", "x" * 1_000, ""])
async def test_files_that_are_not_there(file_id: str) -> None:
    app = make_app()
    for call in (read_file, open_content, delete_file):
        with pytest.raises(NotFound, match="No such File object"):
            await call(app, CALLER, file_id)
    with pytest.raises(NotFound):
        await list_files(app, CALLER, after=file_id)


async def running(app: Application) -> None:
    """Leave a batch in progress, with results of one of its two shards."""
    await upload(app.store)
    await planned(app.store, shards=(("m", 3), ("n", 3)))
    await run_whole(app.store)


async def test_early_results_are_shown_while_the_batch_runs() -> None:
    app = make_app()
    await running(app)
    batch = await read_batch(app, CALLER, "batch_1")
    assert (batch.output_file_id, batch.error_file_id) == (OUTPUT, None)
    assert (await read_file(app, CALLER, OUTPUT)).growing
    assert (await open_content(app, CALLER, OUTPUT)).file.bytes == 30
    with pytest.raises(Conflict, match="still being written"):
        await delete_file(app, CALLER, OUTPUT)


async def test_a_file_without_a_byte_is_not_named() -> None:
    app = make_app()
    await upload(app.store)
    planned_batch = await planned(app.store)
    assert planned_batch.output_file_id == OUTPUT
    batch = await read_batch(app, CALLER, "batch_1")
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


async def test_early_results_can_be_hidden() -> None:
    app = make_app(Settings(early_results=False))
    await running(app)
    assert (await read_batch(app, CALLER, "batch_1")).output_file_id is None
    assert (await list_batches(app, CALLER)).items[0].output_file_id is None
    for call in (read_file, open_content, delete_file):
        with pytest.raises(NotFound):
            await call(app, CALLER, OUTPUT)
    assert [file.id for file in (await list_files(app, CALLER)).items] == ["file-in"]


@pytest.mark.parametrize("early", [False, True])
async def test_results_are_shown_once_the_batch_has_ended(*, early: bool) -> None:
    app = make_app(Settings(early_results=early))
    await upload(app.store)
    await planned(app.store)
    await run_whole(app.store)
    claimed = await claim_finalizing(app.store)
    await app.store.finish_batch(claimed.claim, at=START + 5)
    batch = await read_batch(app, CALLER, "batch_1")
    assert (batch.output_file_id, batch.error_file_id) == (OUTPUT, None)
    assert await delete_file(app, CALLER, OUTPUT) == OUTPUT
    with pytest.raises(NotFound):
        await read_file(app, CALLER, OUTPUT)


async def test_hidden_files_leave_no_holes_in_pages() -> None:
    app = make_app(Settings(early_results=False))
    for number in range(6):
        created_at = START + 10 * number
        await upload(app.store, f"file-{number}", created_at=created_at)
        if number % 2:
            batch_id = f"batch_{number}"
            await planned(app.store, a_batch(batch_id, created_at=created_at))
            await run_whole(app.store, batch_id, at=created_at)
    first = await list_files(app, CALLER, limit=4)
    assert [file.id for file in first.items] == ["file-5", "file-4", "file-3", "file-2"]
    assert first.has_more
    second = await list_files(app, CALLER, limit=4, after="file-2")
    assert [file.id for file in second.items] == ["file-1", "file-0"]
    assert not second.has_more


@pytest.mark.parametrize(
    ("limit", "fine"), [(0, False), (1, True), (10_000, True), (10_001, False)]
)
async def test_the_limit_of_files(limit: int, *, fine: bool) -> None:
    if fine:
        assert not (await list_files(make_app(), CALLER, limit=limit)).has_more
    else:
        with pytest.raises(Refused, match="Invalid 'limit'"):
            await list_files(make_app(), CALLER, limit=limit)


@pytest.mark.parametrize(("limit", "fine"), [(0, False), (1, True), (100, True), (101, False)])
async def test_the_limit_of_batches(limit: int, *, fine: bool) -> None:
    if fine:
        assert not (await list_batches(make_app(), CALLER, limit=limit)).has_more
    else:
        with pytest.raises(Refused, match="Invalid 'limit'"):
            await list_batches(make_app(), CALLER, limit=limit)


async def test_a_page_of_batches_has_twenty() -> None:
    app = make_app()
    for number in range(21):
        await app.store.create_batch(a_batch(f"batch_{number:02d}"))
    page = await list_batches(app, CALLER)
    assert [batch.id for batch in page.items] == [f"batch_{n:02d}" for n in range(20, 0, -1)]
    assert page.has_more


TAIL = Part(blob="b", offset=1, length=4)


async def stored(app: Application, parts: list[Part]) -> Content:
    """Store a file of these parts and open it."""
    size = sum(part.length for part in parts)
    file = File(
        id="file-1",
        tenant=TENANT,
        filename="f",
        purpose=Purpose.EVALS,
        bytes=size,
        created_at=START,
    )
    await app.store.begin_upload("u", tenant=TENANT, blob="a", at=START)
    await app.store.finish_upload("u", file, parts)
    return await open_content(app, CALLER, "file-1")


async def test_content_is_read_in_small_pieces_across_parts() -> None:
    app = make_app()
    data = random.Random(3).randbytes(2 * CHUNK_BYTES_MAX + 10)
    await app.blobs.put("a", data)
    await app.blobs.put("b", b"-tail-")
    content = await stored(app, [Part(blob="a", offset=0, length=len(data)), TAIL])
    pieces = [piece async for piece in content.read(0, len(data) + 4)]
    assert b"".join(pieces) == data + b"tail"
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 14]
    middle = [piece async for piece in content.read(len(data) - 2, 4)]
    assert b"".join(middle) == data[-2:] + b"ta"
    assert [piece async for piece in content.read(5, 0)] == []


def test_many_downloads_share_the_memory_of_their_pieces() -> None:
    downloads = Downloads()
    assert downloads.chunk_bytes == CHUNK_BYTES_MAX
    with ExitStack() as stack:
        for number in range(1, CHUNKS_BYTES_MAX // CHUNK_BYTES_MIN + 2):
            stack.enter_context(downloads.one())
            piece = downloads.chunk_bytes
            assert CHUNK_BYTES_MIN <= piece <= CHUNK_BYTES_MAX
            assert number * piece <= CHUNKS_BYTES_MAX or piece == CHUNK_BYTES_MIN
        assert downloads.chunk_bytes == CHUNK_BYTES_MIN
    assert downloads.chunk_bytes == CHUNK_BYTES_MAX


async def test_a_download_that_is_left_gives_its_memory_back() -> None:
    app = make_app()
    await app.blobs.put("a", bytes(2 * CHUNK_BYTES_MAX))
    content = await stored(app, [Part(blob="a", offset=0, length=2 * CHUNK_BYTES_MAX)])
    reading = content.read(0, 2 * CHUNK_BYTES_MAX)
    await anext(reading)
    with ExitStack() as stack:
        for _ in range(CHUNKS_BYTES_MAX // CHUNK_BYTES_MAX - 1):
            stack.enter_context(app.downloads.one())
        assert app.downloads.chunk_bytes == CHUNK_BYTES_MAX
        with app.downloads.one():
            assert app.downloads.chunk_bytes < CHUNK_BYTES_MAX
            await reading.aclose()
            assert app.downloads.chunk_bytes == CHUNK_BYTES_MAX


async def test_models_are_those_that_are_served() -> None:
    app = make_app()
    assert await list_models(app, CALLER) == ("m", "n")
    assert await read_model(app, CALLER, "n") == "n"
    with pytest.raises(NotFound) as caught:
        await read_model(app, CALLER, "o")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
