"""One connection of HTTP/2: many calls at once, each of which may fail alone.

It takes calls only after the server's settings came: so whoever does not speak HTTP/2 is found out
before one byte of a call was sent.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Protocol

from hpack import HeaderTuple
from typing_extensions import override

from tidegate.domain.errors import ReplyBroken, UpstreamFault
from tidegate.upstreams.base import Call, Receiver, Unanswered
from tidegate.upstreams.connection import REPLAY_SECONDS_MAX, timed_out
from tidegate.upstreams.http2.dialogue import Dialogue, stranger
from tidegate.upstreams.http2.faults import ProtocolBroken
from tidegate.upstreams.http2.frames import FrameReader
from tidegate.upstreams.http2.stream import Stream
from tidegate.upstreams.settings import HttpSettings
from tidegate.upstreams.tls import reason

TIMER_SLACK_SECONDS = 0.001
# What may wait to be sent to a server that asks much and reads nothing.
UNREAD_BYTES_MAX = 2**20


class Keeper(Protocol):
    """Who owns connections: hears what becomes of them."""

    def made(self, connection: "Http2Connection") -> None:
        """Hear that it is open, if not yet ready for calls."""
        ...

    def freed(self) -> None:
        """Hear that there may be room for another call, or place for another connection."""
        ...

    def lost(self, connection: "Http2Connection") -> None:
        """Hear that it is closed for good."""
        ...


class Http2Connection(asyncio.Protocol):
    """Sends calls and reads their replies.

    Attributes:
        ready: set once calls may be sent, or to the fault that prevents it.
        retires_at: the loop's time from which on it takes no other call.
    """

    def __init__(
        self, keeper: Keeper, settings: HttpSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._keeper = keeper
        self._settings = settings
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._dialogue = Dialogue(settings.limits, self)
        self._heard_at = -math.inf
        self._idle_due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self.ready: asyncio.Future[None] = loop.create_future()
        self.retires_at = math.inf

    @property
    def call_count(self) -> int:
        """Return how many calls are under way."""
        return len(self._dialogue.streams)

    def has_room(self, now: float) -> bool:
        """Say whether another call may be sent; one that is too old closes when it has none."""
        if self._is_closing:
            return False
        # Whatever its age, it was opened for one call at least.
        if now >= self.retires_at and not self._dialogue.is_fresh:
            self._leave()
        return self._dialogue.has_room

    def start(
        self, head: Sequence[HeaderTuple], call: Call, receiver: Receiver, *, now: float,
        total_due: float,
    ) -> Stream:  # fmt: skip
        """Send a request whose reply, or fault, the receiver will hear of.

        Args:
            head: its headers.
            call: the call whose head it is.
            receiver: hears once.
            now: the loop's time.
            total_due: the loop's time at which to give up.
        """
        stream = self._dialogue.begin(call, head, receiver)
        stream.sent_at = now
        stream.total_due = total_due
        stream.due = min(total_due, now + self._settings.timeouts.first_byte_seconds)
        self._idle_due = math.inf
        self._watch(stream.due)
        return stream

    def fail(self, fault: UpstreamFault) -> None:
        """End every call with a fault, and close."""
        self.close()
        if not self.ready.done():
            self.ready.set_exception(fault)
            # Whoever opened it may have been cancelled; asking marks the fault as seen.
            self.ready.exception()
        for stream in self._take_all():
            stream.receiver.on_reply(fault)

    def close(self) -> None:
        """Close at once. Twice is harmless."""
        self._dialogue.is_leaving = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that we speak HTTP/2, and how much we take."""
        # uvloop's transports do all that asyncio's do but are no subclasses for mypy or isinstance.
        self._transport = transport  # type: ignore[assignment]  # see above
        self._keeper.made(self)
        session = transport.get_extra_info("ssl_object")
        if session is not None and session.selected_alpn_protocol() != "h2":
            self.fail(stranger("did not agree to speak HTTP/2 over TLS"))
            return
        self._dialogue.greet()

    @override
    def data_received(self, data: bytes) -> None:
        """Take every whole frame."""
        self._heard_at = self._loop.time()
        self._reader.feed(data)
        try:
            while not self._is_closing and (frame := self._reader.next()) is not None:
                self._dialogue.take(frame)
        except ProtocolBroken as exc:
            if self._dialogue.is_greeted:
                self.fail(ReplyBroken(f"The upstream broke the rules of HTTP/2 ({exc})."))
            else:
                self.fail(stranger("does not speak HTTP/2"))

    @override
    def eof_received(self) -> None:
        """Hear that the server sends no more."""
        self._end(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the connection is gone."""
        self._end(exc)
        self._keeper.lost(self)

    @override
    def pause_writing(self) -> None:
        """Hear that the server reads slowly."""
        self._dialogue.is_paused = True

    @override
    def resume_writing(self) -> None:
        """Hear that there is room again."""
        self._dialogue.is_paused = False
        self._dialogue.send_more()

    # What the dialogue calls.

    def write(self, data: bytes) -> None:
        """Send bytes, if the connection is open."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def answer(self, data: bytes) -> None:
        """Send what the server asked for, if it reads at all."""
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            raise ProtocolBroken("it asks more than it takes answers")
        self.write(data)

    def greeted(self) -> None:
        """Hear that calls may be sent."""
        if not self.ready.done():
            self.ready.set_result(None)

    def went_on(self, stream: Stream) -> None:
        """Hear that more of a reply came."""
        idle_due = self._heard_at + self._settings.timeouts.idle_seconds
        stream.due = min(idle_due, stream.total_due)
        self._watch(stream.due)

    def settled(self) -> None:
        """Hear that a call is over, or that there may be room for more of them."""
        if not self._dialogue.streams:
            if self._dialogue.is_leaving:
                self.close()
            else:
                self._idle_due = self._loop.time() + self._settings.timeouts.keep_alive_seconds
                self._watch(self._idle_due)
        self._keeper.freed()

    # Ends

    def _leave(self) -> None:
        """Take no other call, and close after the last one."""
        self._dialogue.is_leaving = True
        if not self._dialogue.streams:
            self.close()

    def _end(self, exc: Exception | None) -> None:
        """Tell every call that the connection has ended before its reply did."""
        why = f" ({reason(exc)})" if isinstance(exc, OSError) else ""
        if not self.ready.done():
            self.fail(stranger(f"closed the connection{why} in place of speaking HTTP/2"))
        self.close()
        now = self._loop.time()
        for stream in self._take_all():
            fault = ReplyBroken(
                f"The upstream closed the connection in the middle of a reply{why}."
            )
            if not stream.heard:
                raced = self._dialogue.is_used and now - stream.sent_at <= REPLAY_SECONDS_MAX
                kind = Unanswered if raced else ReplyBroken
                fault = kind(f"The upstream closed the connection without a reply{why}.")
            stream.receiver.on_reply(fault)

    def _take_all(self) -> list[Stream]:
        streams = [*self._dialogue.streams.values()]
        self._dialogue.streams.clear()
        return streams

    # Time

    def _watch(self, due: float) -> None:
        if due < self._armed_for and not self._is_closing:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_for = due
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        now = self._loop.time() + TIMER_SLACK_SECONDS
        self._timer = None
        self._armed_for = math.inf
        if not self._dialogue.streams and self._idle_due <= now:
            self.close()
            return
        for stream in [*self._dialogue.streams.values()]:
            if stream.due <= now and stream.number in self._dialogue.streams:
                self._expire(stream, now)
        dues = (stream.due for stream in self._dialogue.streams.values())
        self._watch(min(dues, default=self._idle_due))

    def _expire(self, stream: Stream, now: float) -> None:
        phase = "idle" if stream.heard else "first_byte"
        if now >= stream.total_due:
            phase = "total"
        if self._heard_at < stream.sent_at:
            # Nothing came for anybody: the connection may lead nowhere by now.
            self._dialogue.is_leaving = True
        self._dialogue.fail(stream, timed_out(phase, self._settings.timeouts))

    @property
    def _is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()
