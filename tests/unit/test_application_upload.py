"""An upload that ends early leaves neither a file nor bytes, for any order of its parts."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from typing_extensions import override

from testkit.servers.api import FixedModels
from tidegate.access.principal import Principal
from tidegate.application.context import Application
from tidegate.application.files import upload
from tidegate.application.settings import Settings
from tidegate.application.upload_form import FILENAME_CHARACTERS_MAX, Field, FileStart, FormEvent
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import Refused, StorageFull, StoreUnavailable, TooLarge
from tidegate.domain.file import File, Part, Purpose
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import START, ManualClock
from tidegate.testing.ids import SeededIds

PURPOSE = Field(name="purpose", value="batch")
NAME = FileStart(filename="in.jsonl")
ANCHOR = Field(name="expires_after[anchor]", value="created_at")
SECONDS = Field(name="expires_after[seconds]", value="3600")
LINE = b'{"custom_id":"a"}\n'


def make_app(
    *,
    store: MemoryStore | None = None,
    blobs: MemoryBlobs | None = None,
    settings: Settings | None = None,
) -> Application:
    clock = ManualClock()
    return Application(
        settings=settings or Settings(),
        store=store or MemoryStore(clock),
        blobs=blobs or MemoryBlobs(),
        pubsub=MemoryPubSub(),
        models=FixedModels("m"),
        clock=clock,
        ids=SeededIds(random.Random(1)),
    )


async def stream(events: Sequence[FormEvent | Exception]) -> AsyncIterator[FormEvent]:
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield event


async def send(app: Application, *events: FormEvent | Exception) -> File:
    return await upload(app, Principal(tenant="default"), stream(events))


async def assert_empty(app: Application) -> None:
    page = await app.store.list_files("default", after=None, limit=10, ascending=True, purpose=None)
    assert page.items == ()
    assert await app.blobs.list_names("") == []


@pytest.mark.parametrize(
    "events",
    [
        [PURPOSE, ANCHOR, SECONDS, NAME, LINE, LINE],
        [NAME, LINE, LINE, PURPOSE, ANCHOR, SECONDS],
        [SECONDS, NAME, LINE, LINE, ANCHOR, PURPOSE],
        [Field(name="x", value="y"), PURPOSE, SECONDS, ANCHOR, PURPOSE, NAME, LINE, LINE],
    ],
    ids=["fields first", "file first", "mixed", "with extras"],
)
async def test_the_parts_may_come_in_any_order(events: list[FormEvent]) -> None:
    app = make_app()
    file = await send(app, *events)
    assert (file.filename, file.purpose, file.bytes) == ("in.jsonl", Purpose.BATCH, 2 * len(LINE))
    assert (file.created_at, file.expires_at) == (START, START + 3_600)
    _, (part,) = await app.store.get_parts("default", file.id)
    assert part.blob.startswith("uploads/upload_")
    assert await app.blobs.read(part.blob, part.offset, part.length) == LINE + LINE


@pytest.mark.parametrize(("purpose", "seconds"), [("batch", 2_592_000), ("user_data", None)])
async def test_only_batch_inputs_go_by_themselves(purpose: str, seconds: int | None) -> None:
    file = await send(make_app(), Field(name="purpose", value=purpose), NAME, LINE)
    assert file.expires_at == (None if seconds is None else START + seconds)


async def test_a_file_that_is_not_for_a_batch_may_be_anything() -> None:
    app = make_app()
    file = await send(app, Field(name="purpose", value="vision"), NAME, b"\x89PNG\n")
    assert file.bytes == 5
    empty = await send(app, Field(name="purpose", value="vision"), NAME)
    assert empty.bytes == 0
    assert (await app.store.get_parts("default", empty.id))[1] == ()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/etc/passwd", "passwd"),
        ("C:\\jobs\\in.jsonl", "in.jsonl"),
        ("../..", "upload"),
        ("", "upload"),
        (".", "upload"),
        ("a/", "upload"),
        ("a\r\nX: y\0.jsonl", "aX: y.jsonl"),
        ("é 海.jsonl", "é 海.jsonl"),
        ("n" * FILENAME_CHARACTERS_MAX, "n" * FILENAME_CHARACTERS_MAX),
    ],
)
async def test_a_filename_is_no_path(given: str, kept: str) -> None:
    assert (await send(make_app(), PURPOSE, FileStart(filename=given), LINE)).filename == kept


NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"
REFUSED: list[tuple[str, list[FormEvent], str]] = [
    ("nothing", [], "Missing required parameter: 'file'."),
    ("no file", [PURPOSE], "Missing required parameter: 'file'."),
    ("no purpose", [NAME, LINE], "Missing required parameter: 'purpose'."),
    ("unknown purpose", [Field(name="purpose", value="x"), NAME], "Invalid value: 'x'. Supported"),
    (
        "our own purpose",
        [Field(name="purpose", value="batch_output"), NAME],
        "Invalid value: 'batch_output'. Supported",
    ),
    ("purpose twice", [PURPOSE, NAME, LINE, Field(name="purpose", value="evals")], "twice"),
    ("two files", [PURPOSE, NAME, LINE, NAME, LINE], "two files"),
    ("half an expiry", [PURPOSE, ANCHOR, NAME, LINE], "'expires_after.seconds'"),
    ("the other half", [PURPOSE, SECONDS, NAME, LINE], "'expires_after.anchor'"),
    (
        "no number",
        [PURPOSE, ANCHOR, Field(name="expires_after[seconds]", value="1h"), NAME, LINE],
        "expected an integer",
    ),
    (
        "too short",
        [PURPOSE, ANCHOR, Field(name="expires_after[seconds]", value="3599"), NAME, LINE],
        "Expected a value >= 3600",
    ),
    ("long name", [PURPOSE, FileStart(filename="n" * (FILENAME_CHARACTERS_MAX + 1))], "filename"),
    ("empty", [PURPOSE, NAME], NOT_JSONL),
    ("no JSON", [PURPOSE, NAME, b"hello\n", LINE], NOT_JSONL),
    ("no JSON, purpose last", [NAME, b"hello\n", LINE, PURPOSE], NOT_JSONL),
]


@pytest.mark.parametrize(
    ("events", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_what_is_refused_leaves_nothing(events: list[FormEvent], message: str) -> None:
    app = make_app()
    with pytest.raises(Refused) as caught:
        await send(app, *events)
    assert message in caught.value.message
    await assert_empty(app)


async def test_a_bad_file_is_refused_before_its_end() -> None:
    reached = RuntimeError("the rest was asked for")
    with pytest.raises(Refused, match="jsonl"):
        await send(make_app(), PURPOSE, NAME, b"hello\n", reached)


@pytest.mark.parametrize("purpose", ["batch", "evals"])
@pytest.mark.parametrize("last", [False, True], ids=["purpose first", "purpose last"])
async def test_a_file_at_its_bound_passes_and_one_byte_more_does_not(
    purpose: str, *, last: bool
) -> None:
    size = {"batch": 100, "evals": 200}[purpose]
    app = make_app(settings=Settings(file_bytes_max=100, other_file_bytes_max=200))
    field = Field(name="purpose", value=purpose)

    async def attempt(data: bytes) -> File:
        events: list[FormEvent] = [NAME, data, field] if last else [field, NAME, data]
        return await send(app, *events)

    fits = LINE + b"x" * (size - len(LINE))
    file = await attempt(fits)
    assert file.bytes == size
    await app.store.delete_file("default", file.id)
    before = await app.blobs.list_names("")
    with pytest.raises(TooLarge, match=f"larger than {size} bytes"):
        await attempt(fits + b"x")
    assert await app.blobs.list_names("") == before


async def test_a_full_disk_leaves_nothing() -> None:
    app = make_app(blobs=MemoryBlobs(bytes_max=10))
    with pytest.raises(StorageFull):
        await send(app, PURPOSE, NAME, LINE)
    await assert_empty(app)


class Abandoned(MemoryStore):
    """Remembers which uploads were abandoned."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.abandoned: list[str] = []

    @override
    async def abandon_upload(self, upload_id: str) -> bool:
        self.abandoned.append(upload_id)
        return await super().abandon_upload(upload_id)


@pytest.mark.parametrize("error", [ConnectionError(), asyncio.CancelledError()])
async def test_a_stream_that_breaks_fences_the_upload(error: BaseException) -> None:
    store = Abandoned()
    app = make_app(store=store)

    async def broken() -> AsyncIterator[FormEvent]:
        for event in (PURPOSE, NAME, LINE):
            yield event
        raise error

    with pytest.raises(type(error)):
        await upload(app, Principal(tenant="default"), broken())
    assert len(store.abandoned) == 1
    await assert_empty(app)


class Forgetful(MemoryStore):
    """Loses the answer of the first `finish_upload`, before or after it happened."""

    def __init__(self, *, after: bool) -> None:
        super().__init__(ManualClock())
        self._after = after
        self._lost = False

    @override
    async def finish_upload(self, upload_id: str, file: File, parts: Sequence[Part]) -> File:
        if self._lost:
            return await super().finish_upload(upload_id, file, parts)
        self._lost = True
        if self._after:
            await super().finish_upload(upload_id, file, parts)
        raise StoreUnavailable("No answer.")


async def test_a_file_that_was_recorded_is_not_lost_with_the_answer() -> None:
    app = make_app(store=Forgetful(after=True))
    file = await send(app, PURPOSE, NAME, LINE)
    assert await app.store.get_file("default", file.id) == file
    assert len(await app.blobs.list_names("uploads/")) == 1


async def test_a_file_that_was_not_recorded_leaves_no_bytes() -> None:
    app = make_app(store=Forgetful(after=False))
    with pytest.raises(StoreUnavailable):
        await send(app, PURPOSE, NAME, LINE)
    await assert_empty(app)


class Away(MemoryStore):
    """Records what begins, and then answers no more."""

    @override
    async def abandon_upload(self, upload_id: str) -> bool:
        raise StoreUnavailable("No answer.")


async def test_a_fence_that_fails_hides_no_refusal() -> None:
    app = make_app(store=Away(ManualClock()))
    with pytest.raises(Refused, match="jsonl"):
        await send(app, PURPOSE, NAME, b"hello")


async def test_a_form_without_a_file_is_refused_at_its_end() -> None:
    with pytest.raises(Refused, match="'file'"):
        await send(make_app(), b"stray", PURPOSE)
