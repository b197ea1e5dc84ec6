"""Random requests to the whole API: never a 5xx, and always an envelope, an object or a file."""

import asyncio
import json
import random
from dataclasses import dataclass

from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Scope

from testkit.fuzz.jsonl import JSON, SOUND
from testkit.fuzz.mutations import CUTS, cut, edited, edits
from testkit.fuzz.target import Target
from testkit.servers.api import FixedModels, RememberedLog
from tidegate.api.app import build_app
from tidegate.api.settings import Limits, Settings
from tidegate.application.settings import Settings as DeskSettings
from tidegate.blobs.memory import MemoryBlobs
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.ids import SeededIds
from tidegate.testing.loop import run_virtual

SETTINGS = Settings(
    limits=Limits(body_bytes_max=2_000, headers_max=12, header_bytes_max=2_000),
    batch_api=DeskSettings(file_bytes_max=1_000, other_file_bytes_max=2_000),
)
OURS = 500
ENVELOPE = {"message", "type", "param", "code"}
MESSAGE_CHARACTERS_MAX = 1_000
TELLING = [b'"', b"{", b"}", b"null", b"\\ud800", b"\x00", b"\xff", b"[" * 70, b"1e999", b"--tide"]
FILE, BATCH = "FILE", "BATCH"  # Stand for ids that were given out before.


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it comes off the wire."""

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    cuts: list[int]
    ends: bool


STEPS = st.sampled_from(
    ["v1", "files", "batches", "models", "content", "cancel", "", FILE, BATCH, "tide-1", "..", "*"]
)
STRAY = STEPS | st.text(max_size=6)
PATHS = st.sampled_from(
    ["/v1/files", f"/v1/files/{FILE}", f"/v1/files/{FILE}/content", "/v1/batches",
     f"/v1/batches/{BATCH}", f"/v1/batches/{BATCH}/cancel", "/v1/models", "/v1/models/org/tide-2"]
) | st.lists(STRAY, max_size=5).map(lambda steps: "/" + "/".join(steps))  # fmt: skip
VALUES = st.sampled_from(
    ["0", "1", "100", "101", "10001", "-1", "x", "", "asc", "desc", "batch", "output", FILE, BATCH]
) | st.text(max_size=6)
QUERIES = st.lists(
    st.tuples(st.sampled_from(["limit", "after", "order", "purpose", "x"]), VALUES), max_size=3
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["host", "authorization", "idempotency-key", "content-encoding", "range", "if-match",
             "if-none-match", "if-range", "origin", "x-request-id", "content-length", "expect"]
        ),
        st.sampled_from(
            ["localhost", "bytes=0-1", "bytes=9-", "bytes=-3", "bytes=5-2", "*", '"x"', "gzip",
             "identity", "Bearer x", "9999999", "http://evil.example", "k"]
        ) | st.text(st.characters(max_codepoint=255), max_size=12),
    ),
    max_size=4,
).map(lambda rows: [(name.encode(), value.encode("latin-1")) for name, value in rows])  # fmt: skip
CREATE = st.fixed_dictionaries(
    {
        "input_file_id": st.just(FILE) | JSON,
        "endpoint": st.sampled_from(["/v1/chat/completions", "/v1/nope"]),
        "completion_window": st.sampled_from(["24h", "1h", "1y"]),
    },
    optional={
        "metadata": JSON | st.dictionaries(st.text(max_size=70), st.text(max_size=9), max_size=18),
        "output_expires_after": JSON
        | st.fixed_dictionaries({"anchor": st.just("created_at"), "seconds": JSON}),
    },
).map(lambda members: json.dumps(members).encode())
FORMS = st.builds(
    lambda purpose, content: b"".join(
        (
            b'--tide\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose,
            b'\r\n--tide\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
            content + b"\r\n--tide--\r\n",
        )
    ),
    st.sampled_from([b"batch", b"evals", b"user_data", b"output", b""]),
    SOUND | st.binary(max_size=30),
)
KINDS = st.sampled_from(
    [b"multipart/form-data; boundary=tide", b"application/json", b"multipart/form-data", b""]
)


def _asked(
    method: str,
    target: tuple[str, str],
    headers: list[tuple[bytes, bytes]],
    kind: bytes,
    body: bytes,
    rest: tuple[list[int], bool],
) -> Asked:
    return Asked(method, *target, [(b"content-type", kind), *headers], body, *rest)


BODIES = st.builds(edited, CREATE | FORMS | st.binary(max_size=40), edits(TELLING))
METHODS = st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "BREW"])
WILD = st.builds(
    _asked,
    METHODS,
    st.tuples(PATHS, QUERIES),
    HEADERS,
    KINDS,
    BODIES,
    st.tuples(CUTS, st.booleans()),
)
UPLOAD = st.builds(
    Asked,
    st.just("POST"),
    st.just("/v1/files"),
    st.just(""),
    st.just([(b"content-type", b"multipart/form-data; boundary=tide")]),
    FORMS | st.builds(edited, FORMS, edits(TELLING)),
    CUTS,
    st.just(value=True),
)
BEGIN = st.builds(
    Asked,
    st.just("POST"),
    st.just("/v1/batches"),
    st.just(""),
    HEADERS,
    CREATE | st.builds(edited, CREATE, edits(TELLING)),
    CUTS,
    st.just(value=True),
)
INPUTS = st.lists(UPLOAD | BEGIN | WILD, min_size=1, max_size=6)


def check(requests: list[Asked]) -> None:
    """Send requests one after the other, and hold each reply to the rules of all replies."""
    run_virtual(_check(requests))


async def _check(requests: list[Asked]) -> None:
    log = RememberedLog()
    clock = ManualClock()
    app = build_app(
        settings=SETTINGS,
        store=MemoryStore(clock),
        blobs=MemoryBlobs(),
        pubsub=MemoryPubSub(),
        models=FixedModels("tide-1", "org/tide-2"),
        clock=clock,
        ids=SeededIds(random.Random(1)),
        log=log,
    )
    known = {FILE: "file-x", BATCH: "batch_x"}
    for request in requests:
        await _ask(app, request, known)
    assert log.events == [], log.events


async def _ask(app: ASGIApp, request: Asked, known: dict[str, str]) -> None:
    pieces = [
        {"type": "http.request", "body": piece, "more_body": True}
        for piece in cut(_named(request.body, known), request.cuts)
    ]
    end = {"type": "http.request", "body": b""} if request.ends else {"type": "http.disconnect"}
    waiting: list[Message] = [*pieces, end]
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("the client never goes")

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope(request, known), receive, send)
    if sent or request.ends:
        _check_reply(request, sent, known)


def _scope(request: Asked, known: dict[str, str]) -> Scope:
    headers = [(name, _named(value, known)) for name, value in request.headers]
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", b"localhost"))
    return {
        "type": "http",
        "method": request.method,
        "path": _named(request.path.encode("utf-8", "replace"), known).decode(),
        "query_string": _named(request.query.encode("utf-8", "replace"), known),
        "headers": headers,
    }


def _named(data: bytes, known: dict[str, str]) -> bytes:
    for word, value in known.items():
        data = data.replace(word.encode(), value.encode())
    return data


def _check_reply(request: Asked, sent: list[Message], known: dict[str, str]) -> None:
    start, *rest = sent
    body = b"".join(message["body"] for message in rest)
    headers = dict(start["headers"])
    assert len(headers) == len(start["headers"]), "a header is there twice"
    assert b"x-request-id" in headers
    assert rest[-1].get("more_body", False) is False
    assert start["status"] < OURS, (start["status"], body)
    if request.method != "HEAD" and start["status"] != 304:  # noqa: PLR2004 - HTTP's own number
        assert int(headers[b"content-length"]) == len(body)
    if not body or headers[b"content-type"] == b"application/octet-stream":
        return
    assert headers[b"content-type"] == b"application/json"
    read = json.loads(body)
    assert isinstance(read, dict)
    if start["status"] >= 400:  # noqa: PLR2004 - HTTP's own number
        error = read["error"]
        assert set(read) == {"error"}
        assert set(error) == ENVELOPE
        assert 0 < len(error["message"]) <= MESSAGE_CHARACTERS_MAX
        assert len(error["param"] or "") <= MESSAGE_CHARACTERS_MAX
    elif request.method == "POST":
        known[BATCH if read["object"] == "batch" else FILE] = read["id"]


TARGET = Target(name="api", inputs=INPUTS, check=check)
