"""A small HTTP/2 server that lets a function answer: the other end for tests of HTTP/2 upstreams.

It listens on 127.0.0.1, on a free port. A fault that the function raises becomes what brings about
that fault on the other side: silence, a broken reply, or one that announces too much.
"""

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tidegate.domain.errors import ReplyTooLarge, TimedOut, UpstreamFault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http2 import frames
from tidegate.upstreams.http2.frames import Frame, FrameReader
from tidegate.upstreams.http2.hpack import Unpacker, pack
from tidegate.upstreams.memory import Handler

READ_BYTES = 64 * 1024
HEADER_BYTES_MAX = 256 * 1024
INTERNAL_ERROR = 2


class Http2Server:
    """Serves calls by a handler; `async with` starts and stops it.

    Attributes:
        connections_seen: how many connections were opened to it.
        resets: the error codes of the calls that the other side ended.
        reset: set with each of them.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        settings: Mapping[str, int] | None = None,
    ) -> None:
        """Take the handler, and the settings to begin with by the names of `settings_frame`."""
        self._handler = handler
        self._tls = tls
        self._settings = settings or {}
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.Event] = {}
        self.connections_seen = 0
        self.resets: list[int] = []
        self.reset = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Return the base URL, without a path."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def open_count(self) -> int:
        """Return how many connections are open."""
        return len(self._serving)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None, "stopped before it was started"
        self._server.close()
        ended = list(self._serving.values())
        for task in self._serving:
            task.cancel()
        for event in ended:
            await event.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_seen += 1
        task = asyncio.current_task()
        assert task is not None, "served outside a task"
        ended = self._serving[task] = asyncio.Event()
        try:
            preface = await reader.readexactly(len(frames.PREFACE))
            assert preface == frames.PREFACE, preface
            writer.write(frames.settings_frame(**self._settings))
            async with asyncio.TaskGroup() as group:
                room = self._settings.get("initial_window_size", frames.WINDOW_START)
                guest = _Guest(self, self._handler, writer, group, room)
                await guest.listen(reader)
                raise ConnectionResetError("the other side has left")
        except (ExceptionGroup, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Breaking the connection off is all there is to say; the cancel is our own stop.
            return
        finally:
            del self._serving[task]
            writer.transport.abort()
            ended.set()


class _Guest:
    """One connection, and the calls on it."""

    def __init__(
        self,
        server: Http2Server,
        handler: Handler,
        writer: asyncio.StreamWriter,
        group: asyncio.TaskGroup,
        room: int,
    ) -> None:
        self._server = server
        self._handler = handler
        self._writer = writer
        self._group = group
        self._unpacker = Unpacker()
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._window = frames.WINDOW_START
        self._stream_window = frames.WINDOW_START
        self._windows: dict[int, int] = {}
        self._widened = asyncio.Event()
        self._room = room
        self._rooms: dict[int, int] = {0: frames.WINDOW_START}

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take frames until the other side has no more."""
        cutter = FrameReader()
        while data := await reader.read(READ_BYTES):
            cutter.feed(data)
            while (frame := cutter.next()) is not None:
                self._take(frame)
            self._make_room()

    def _take(self, frame: Frame) -> None:
        if frame.kind == frames.HEADERS:
            self._open(frame)
        elif frame.kind == frames.DATA:
            for number in (0, frame.stream):
                self._rooms[number] = self._rooms.get(number, self._room) - frame.size
                assert self._rooms[number] >= 0, "more than the server lets come"
            self._bodies[frame.stream] += frame.payload
        elif frame.kind == frames.RST_STREAM:
            self._close(frame)
        elif frame.kind == frames.SETTINGS and not frame.flags & frames.ACK:
            self._heed(frame.payload)
            self._writer.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        elif frame.kind == frames.WINDOW_UPDATE:
            self._widen(frame)
        if frame.kind in {frames.HEADERS, frames.DATA} and frame.flags & frames.END_STREAM:
            self._tasks[frame.stream] = self._group.create_task(
                self._answer(frame.stream), name=f"call {frame.stream}"
            )

    def _make_room(self) -> None:
        """Let as much come again as was taken, once all is read that came without waiting."""
        for number, room in [*self._rooms.items()]:
            full = self._room if number else frames.WINDOW_START
            if room < full and (not number or number in self._bodies):
                self._writer.write(frames.window_frame(number, full - room))
                self._rooms[number] = full

    def _open(self, frame: Frame) -> None:
        assert frame.flags & frames.END_HEADERS, "larger heads are sent by no test"
        fields = self._unpacker.unpack(frame.payload, HEADER_BYTES_MAX)
        assert fields is not None, "a head that is too large"
        self._heads[frame.stream] = {
            name.decode(): value.decode("latin-1") for name, value in fields
        }
        self._bodies[frame.stream] = bytearray()

    def _close(self, frame: Frame) -> None:
        self._server.resets.append(int.from_bytes(frame.payload, "big"))
        self._server.reset.set()
        if frame.stream in self._tasks:
            self._tasks[frame.stream].cancel()

    def _widen(self, frame: Frame) -> None:
        more = int.from_bytes(frame.payload, "big")
        if frame.stream:
            self._windows[frame.stream] = self._windows.get(frame.stream, 0) + more
        else:
            self._window += more
        self._widened.set()

    def _heed(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            if int.from_bytes(payload[start : start + 2], "big") == frames.INITIAL_WINDOW_SIZE:
                self._stream_window = int.from_bytes(payload[start + 2 : start + 6], "big")

    async def _answer(self, number: int) -> None:
        head = self._heads.pop(number)
        call = Call(
            method=head[":method"],
            path=head[":path"],
            headers={name: value for name, value in head.items() if not name.startswith(":")},
            body=bytes(self._bodies.pop(number)),
        )
        try:
            reply = await self._handler(call)
        except TimedOut:
            await asyncio.Event().wait()
        except ReplyTooLarge:
            await self._say(number, 200, {"content-length": "99999999999999"}, b"", ends=False)
        except UpstreamFault:
            self._writer.write(frames.reset_frame(number, INTERNAL_ERROR))
        else:
            await self._say(number, reply.status, reply.headers, reply.body, ends=True)

    async def _say(
        self, number: int, status: int, headers: Mapping[str, str], body: bytes, *, ends: bool
    ) -> None:
        fields = [(b":status", b"%d" % status)]
        fields += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        last = frames.END_STREAM if ends else 0
        flags = frames.END_HEADERS | (0 if body else last)
        self._writer.write(frames.frame(frames.HEADERS, flags, number, pack(fields)))
        rest = memoryview(body)
        while rest:
            room = min(self._window, self._windows.get(number, 0) + self._stream_window)
            size = min(len(rest), room, frames.PAYLOAD_BYTES_MAX)
            if not size:
                self._widened.clear()
                await self._widened.wait()
                continue
            piece, rest = rest[:size], rest[size:]
            self._window -= size
            self._windows[number] = self._windows.get(number, 0) - size
            flags = 0 if rest else last
            self._writer.write(frames.frame(frames.DATA, flags, number, bytes(piece)))
            await self._writer.drain()
