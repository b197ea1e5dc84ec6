"""One connection to an upstream: one call at a time, and closed as soon as its state is in doubt.

A connection is reused only if the reply ended exactly where its length says, nothing followed in
the same packet, the server keeps the connection open, and the whole request was written. Anything
else closes it: extra bytes, bytes while idle, a broken reply, an exceeded bound, a time-out or an
abandoned call.
"""

import asyncio
import math
import ssl
from typing import Protocol

from tidegate.domain.errors import (
    ConnectFailed,
    ReplyBroken,
    ReplyTooLarge,
    TimedOut,
    UpstreamFault,
)
from tidegate.upstreams.base import Call, Receiver, Reply, StaleConnection
from tidegate.upstreams.http1.fast_path import FastReplyParser
from tidegate.upstreams.http1.framing import BodyReader, Head, HeadReader, body_for
from tidegate.upstreams.settings import HttpSettings, Timeouts
from tidegate.upstreams.transport.tls import reason

# A body up to this size is joined with the head, so that both are sent in one packet.
JOINED_BYTES_MAX = 64 * 1024

# If a server closes an idle connection while a call is being written, we see it within moments. If
# it closes later, it has read the request and may have done the work: then the call is not
# repeated.
REPLAY_SECONDS_MAX = 1.0

STATUS_SWITCHING = 101
STATUS_FINAL_MIN = 200


class ConnectionOwner(Protocol):
    """The owner of connections; it is called when their state changes."""

    def made(self, connection: "Connection") -> None:
        """Record that the connection is open."""

    def released(self, connection: "Connection") -> None:
        """Record that the connection is free for another call."""

    def lost(self, connection: "Connection") -> None:
        """Record that the connection is closed."""

    def flush_soon(self, connection: "Connection") -> None:
        """Call `flush` at the end of this iteration of the loop, or immediately."""

    def watch(self, due: float) -> None:
        """Call `expire` at this time of the loop."""


def timed_out(phase: str, timeouts: Timeouts) -> TimedOut:
    """Return the fault of a call that waited longer than its phase allows."""
    what, seconds = {
        "total": ("did not finish its reply within", timeouts.total_seconds),
        "idle": ("stopped in the middle of its reply for", timeouts.idle_seconds),
        "first_byte": ("sent no byte of a reply within", timeouts.first_byte_seconds),
    }[phase]
    return TimedOut(f"The upstream {what} {seconds:g} s ({phase}_seconds).", phase=phase)


class Connection:
    """Sends a call and reads its reply; has the methods of an `asyncio.Protocol`.

    It does not inherit from it, because a compiled class can't inherit from one that is not.

    Attributes:
        due: the loop's time at which to call `expire`; infinite if nothing is awaited.
        retires_at: the loop's time after which it takes no more calls.
    """

    __slots__ = ("_body", "_call", "_fast_parser", "_first_byte_seconds", "_head", "_heard",
                 "_interims", "_keep_alive_seconds", "_loop", "_owner", "_reader", "_receiver",
                 "_sent_at", "_settings", "_total_due", "_transport", "_unsent", "_used", "due",
                 "retires_at")  # fmt: skip

    def __init__(
        self,
        keeper: ConnectionOwner,
        settings: HttpSettings,
        loop: asyncio.AbstractEventLoop,
        fast_parser: FastReplyParser,
    ) -> None:
        self._owner = keeper
        self._settings = settings
        # Kept here because each call reads them.
        self._first_byte_seconds = settings.timeouts.first_byte_seconds
        self._keep_alive_seconds = settings.timeouts.keep_alive_seconds
        self._loop = loop
        self._fast_parser = fast_parser
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._call: Call | None = None
        self._reader: HeadReader | None = None
        self._head: Head | None = None
        self._body: BodyReader | None = None
        self._heard = False
        self._used = False
        self._unsent: tuple[bytes, ...] | None = None
        self._interims = 0
        self._sent_at = 0.0
        self._total_due = math.inf
        self.due = math.inf
        self.retires_at = math.inf

    @property
    def is_open(self) -> bool:
        """Return whether a call may still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def start(
        self, head: bytes, call: Call, receiver: Receiver, *, now: float, total_due: float
    ) -> None:
        """Take a call, which `flush` writes; the receiver gets its reply or fault.

        Args:
            head: everything before the body.
            call: the call whose head it is.
            receiver: is called once; immediately, if the connection is no longer open.
            now: the loop's time.
            total_due: the loop's time at which to give up.
        """
        transport = self._transport
        assert self._receiver is None, "two calls on one connection"
        assert transport is not None, "a call on no connection"
        if transport.is_closing():
            # The server closed the connection before this call: no reply would come.
            receiver.on_reply(
                ConnectFailed("The upstream closed the connection before the call was sent.")
            )
            return
        self._receiver = receiver
        self._call = call
        self._heard = False
        self._interims = 0
        self._sent_at = now
        self._total_due = total_due
        self.due = min(total_due, now + self._first_byte_seconds)
        self._owner.watch(self.due)
        body = call.body
        if len(body) <= JOINED_BYTES_MAX:
            self._unsent = (head + body,)
        else:
            self._unsent = (head, body)
        self._owner.flush_soon(self)

    def flush(self) -> None:
        """Write the request, unless the call was abandoned."""
        unsent, self._unsent = self._unsent, None
        transport = self._transport
        if unsent is None or transport is None or transport.is_closing():
            return
        if len(unsent) == 1:
            transport.write(unsent[0])
        else:
            transport.writelines(unsent)

    def abandon(self, receiver: Receiver) -> None:
        """Close the connection, so that this reply never answers another call."""
        if self._receiver is receiver:
            self._receiver = None
            self.close()

    def expire(self, now: float) -> None:
        """Fail the call whose time is up, or close the idle connection."""
        if self._receiver is None:
            self.close()
            return
        timeouts = self._settings.timeouts
        if now >= self._total_due:
            fault = timed_out("total", timeouts)
        elif self._heard:
            fault = timed_out("idle", timeouts)
        else:
            fault = timed_out("first_byte", timeouts)
        self.fail(fault)

    def fail(self, fault: UpstreamFault) -> None:
        """End the call with a fault, if there is one under way, and close the connection."""
        receiver, self._receiver = self._receiver, None
        self.close()
        if receiver is not None:
            receiver.on_reply(fault)

    def close(self) -> None:
        """Close immediately. May be called twice."""
        self.due = math.inf
        self._unsent = None
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports have asyncio's methods but are no subclasses of its classes.
        self._transport = transport  # type: ignore[assignment]  # see above
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        """Read more of the reply, and finish the call when it is complete."""
        if self._receiver is None:
            # No call is under way: these bytes must not become the reply to the next one.
            self.close()
            return
        if self._unsent is not None:
            # The call is not written yet. Servers send such bytes before they close.
            self.fail(self._never_sent("The upstream spoke before the call was sent."))
            return
        try:
            if not self._heard:
                self._heard = True
                reply = self._read_fast(data)
                if reply is not None:
                    self._finish(reply, reusable=True)
                    return
            extra = self._read(data)
        except UpstreamFault as fault:
            self.fail(fault)
            return
        if extra is None:
            idle_due = self._loop.time() + self._settings.timeouts.idle_seconds
            self.due = min(idle_due, self._total_due)
            self._owner.watch(self.due)
        else:
            self._finish(self._whole(), reusable=extra == 0 and self._keeps_alive)

    def eof_received(self) -> None:
        """Handle the end of the server's bytes, which ends replies without a length."""
        if self._receiver is None:
            self.close()
        elif self._body is not None and self._body.ends_at_close:
            self._finish(self._whole(), reusable=False)
        else:
            self.fail(self._ended(None))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the call, if there is one: the connection is closed."""
        self._owner.lost(self)
        if self._receiver is not None:
            self.fail(self._ended(exc))

    def pause_writing(self) -> None:
        """Do nothing: the transport buffers the rest of the request."""

    def resume_writing(self) -> None:
        """Do nothing."""

    # Reading

    def _read_fast(self, data: bytes) -> Reply | None:
        """Return the reply if the fast parser can read it; otherwise prepare the full parser."""
        assert self._call is not None, "a reply without a request"
        # A reply to HEAD has no body, even if its headers announce one.
        reply = self._fast_parser.read(data) if self._call.method != "HEAD" else None
        if reply is None:
            self._reader = HeadReader(self._settings.limits)
        return reply

    def _read(self, data: bytes) -> int | None:
        """Return the number of bytes after the end of the reply; None if it has not ended."""
        body = self._body
        while body is None:
            assert self._reader is not None, "a reply without a request"
            step = self._reader.feed(data)
            if step is None:
                return None
            head, data = step
            if head.status < STATUS_FINAL_MIN:
                self._skip(head)
            else:
                assert self._call is not None, "a reply without a request"
                self._head = head
                body = self._body = body_for(head, self._call.method, self._settings.limits)
        extra = body.feed(data) if data else 0
        return extra if body.done else None

    def _skip(self, head: Head) -> None:
        assert head.status != STATUS_SWITCHING, "the parser stops at an upgrade"
        self._interims += 1
        if self._interims > self._settings.limits.interim_replies_max:
            raise ReplyTooLarge(
                f"The upstream sent more than {self._settings.limits.interim_replies_max} interim "
                "replies before its reply (interim_replies_max)."
            )
        self._reader = HeadReader(self._settings.limits)

    @property
    def _keeps_alive(self) -> bool:
        return self._head is not None and self._head.keeps_alive

    def _whole(self) -> Reply:
        """Return the reply that the full parser has read."""
        head, body = self._head, self._body
        assert head is not None, "a reply without a head"
        assert body is not None, "a reply without a body"
        return Reply(status=head.status, headers=head.headers, body=body.content())

    def _finish(self, reply: Reply, *, reusable: bool) -> None:
        """Give the reply to its receiver; free the connection for another call, or close it."""
        receiver, head, transport = self._receiver, self._head, self._transport
        assert receiver is not None, "a reply without a receiver"
        assert transport is not None, "a reply from nowhere"
        self._receiver = self._call = self._reader = self._head = self._body = None
        # If the server answered early, the rest of the request would be read as the next one.
        if reusable and self._unsent is None and transport.get_write_buffer_size() == 0:
            self._used = True
            kept_seconds = self._keep_alive_seconds
            if head is not None and head.kept_seconds is not None:
                kept_seconds = min(kept_seconds, head.kept_seconds)
            self.due = self._loop.time() + kept_seconds
            self._owner.watch(self.due)
            self._owner.released(self)
        else:
            self.close()
        receiver.on_reply(reply)

    def _never_sent(self, text: str) -> UpstreamFault:
        return StaleConnection(text) if self._used else ConnectFailed(text)

    def _ended(self, exc: Exception | None) -> UpstreamFault:
        """Return the fault of a connection that ended before the reply did."""
        why = f" ({reason(exc)})" if isinstance(exc, OSError) else ""
        if self._unsent is not None:
            return self._never_sent(f"The upstream closed the connection before the call{why}.")
        if self._heard:
            return ReplyBroken(f"The upstream closed the connection in the middle of a reply{why}.")
        if isinstance(exc, ssl.SSLError):
            return ConnectFailed(
                f"The upstream ended TLS before it answered{why}: check tls.cert_file and whether "
                "the server asks for a certificate."
            )
        text = f"The upstream closed the connection without a reply{why}."
        if self._used and self._loop.time() - self._sent_at <= REPLAY_SECONDS_MAX:
            return StaleConnection(text)
        return ReplyBroken(text)
