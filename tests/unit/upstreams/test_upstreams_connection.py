"""One connection, driven by hand: what happens when two things happen at once."""

import asyncio
import ssl
from collections.abc import Iterable

import pytest
from typing_extensions import override

from testkit.servers.hostile import plain_reply
from tidegate.domain.errors import ConnectFailed, ReplyBroken, TimedOut, UpstreamFault
from tidegate.upstreams.base import Call, Reply, StaleConnection
from tidegate.upstreams.http1.connection import REPLAY_SECONDS_MAX, Connection
from tidegate.upstreams.http1.fast_path import FastReplyParser
from tidegate.upstreams.http1.reply_waiter import ReplyWaiter
from tidegate.upstreams.settings import HttpSettings, Limits, Timeouts

CALL = Call(path="/v1/x", body=b"{}")
FAR = 1e12


class Wire(asyncio.Transport):
    """A transport without a network that records what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False
        self.waiting_bytes = 0

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    @override
    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    @override
    def abort(self) -> None:
        self.aborted = True

    @override
    def is_closing(self) -> bool:
        return self.aborted

    @override
    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes


class Owner:
    """Remembers what became of the connection."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.flushes = True

    def made(self, connection: Connection) -> None:
        assert connection.is_open
        self.events.append("made")

    def released(self, connection: Connection) -> None:
        assert connection.is_open
        self.events.append("released")

    def lost(self, connection: Connection) -> None:
        assert connection.due
        self.events.append("lost")

    def flush_soon(self, connection: Connection) -> None:
        if self.flushes:
            connection.flush()

    def watch(self, due: float) -> None:
        assert due < FAR


class Bench:
    """A connection with nothing behind it."""

    def __init__(self) -> None:
        self.wire, self.owner = Wire(), Owner()
        settings = HttpSettings(
            url="http://host", timeouts=Timeouts(first_byte_seconds=5, total_seconds=100)
        )
        self.loop = asyncio.get_running_loop()
        self._waiters: dict[asyncio.Future[Reply], ReplyWaiter] = {}
        quick = FastReplyParser(settings.limits)
        self.connection = Connection(self.owner, settings, self.loop, quick)
        self.connection.connection_made(self.wire)

    def start(self) -> asyncio.Future[Reply]:
        waiter = ReplyWaiter()
        self._waiters[waiter.future] = waiter
        now = self.loop.time()
        self.connection.start(b"POST\r\n\r\n", CALL, waiter, now=now, total_due=FAR)
        return waiter.future

    def abandon(self, future: asyncio.Future[Reply]) -> None:
        waiter = self._waiters.pop(future)
        self.connection.abandon(waiter)
        waiter.forget()


def outcome(waiter: asyncio.Future[Reply]) -> UpstreamFault:
    fault = waiter.exception()
    assert isinstance(fault, UpstreamFault)
    return fault


async def test_a_cancel_that_comes_after_the_reply_harms_no_other_call() -> None:
    bench = Bench()
    first = bench.start()
    bench.connection.data_received(plain_reply(b"first"))
    second = bench.start()
    # Only now does the first call learn that it was cancelled.
    bench.abandon(first)
    assert not bench.wire.aborted
    bench.connection.data_received(plain_reply(b"second"))
    assert ((await first).body, (await second).body) == (b"first", b"second")
    assert bench.owner.events == ["made", "released", "released"]


async def test_a_reply_to_a_cancelled_call_frees_the_connection() -> None:
    bench = Bench()
    waiter = bench.start()
    waiter.cancel()
    bench.connection.data_received(plain_reply(b"late"))
    bench.abandon(waiter)
    assert bench.owner.events == ["made", "released"]
    assert not bench.wire.aborted


async def test_a_cancelled_call_closes_the_connection() -> None:
    bench = Bench()
    waiter = bench.start()
    waiter.cancel()
    bench.abandon(waiter)
    assert bench.wire.aborted
    bench.connection.data_received(plain_reply(b"late"))
    bench.connection.connection_lost(None)
    assert bench.owner.events == ["made", "lost"]


async def test_a_fault_that_nobody_waits_for_is_not_complained_about() -> None:
    bench = Bench()
    complaints: list[object] = []
    bench.loop.set_exception_handler(lambda _, context: complaints.append(context))
    waiter = bench.start()
    bench.connection.connection_lost(None)
    bench.abandon(waiter)
    del waiter
    await asyncio.sleep(0)
    assert complaints == []


async def test_two_calls_at_once_are_a_mistake_of_ours() -> None:
    bench = Bench()
    waiter = bench.start()
    with pytest.raises(AssertionError, match="two calls"):
        await bench.start()
    waiter.cancel()


async def test_a_request_that_still_lies_in_the_buffer_closes_the_connection() -> None:
    bench = Bench()
    waiter = bench.start()
    bench.wire.waiting_bytes = 1
    bench.connection.data_received(plain_reply(b"early"))
    assert (await waiter).body == b"early"
    assert bench.wire.aborted


@pytest.mark.parametrize("late", [False, True])
async def test_only_an_end_within_moments_is_a_race(*, late: bool) -> None:
    bench = Bench()
    served = bench.start()
    bench.connection.data_received(plain_reply(b"served"))
    await served
    waiter = bench.start()
    if late:
        bench.connection._sent_at -= REPLAY_SECONDS_MAX + 0.1
    bench.connection.connection_lost(None)
    assert type(outcome(waiter)) is (ReplyBroken if late else StaleConnection)


@pytest.mark.parametrize("has_first_byte", [False, True])
async def test_an_end_on_a_fresh_connection_is_never_a_race(*, has_first_byte: bool) -> None:
    bench = Bench()
    waiter = bench.start()
    if has_first_byte:
        bench.connection.data_received(b"H")
    bench.connection.eof_received()
    assert type(outcome(waiter)) is ReplyBroken
    assert bench.wire.aborted


@pytest.mark.parametrize("has_first_byte", [False, True])
async def test_a_time_limit_names_what_was_waited_for(*, has_first_byte: bool) -> None:
    bench = Bench()
    waiter = bench.start()
    if has_first_byte:
        bench.connection.data_received(b"H")
    bench.connection.expire(bench.connection.due)
    fault = outcome(waiter)
    assert isinstance(fault, TimedOut)
    assert fault.phase == ("idle" if has_first_byte else "first_byte")
    assert f"({fault.phase}_seconds)." in str(fault)


async def test_a_refusal_by_tls_after_the_handshake_names_the_certificate() -> None:
    bench = Bench()
    waiter = bench.start()
    bench.connection.connection_lost(ssl.SSLError(1, "[SSL] tlsv13 alert certificate required"))
    fault = outcome(waiter)
    assert type(fault) is ConnectFailed
    assert "check tls.cert_file" in str(fault)


async def test_a_connection_that_closed_before_the_call_fails_it_at_once() -> None:
    bench = Bench()
    bench.wire.aborted = True
    assert type(outcome(bench.start())) is ConnectFailed
    assert bench.wire.written == b""


async def test_closing_without_a_transport_is_harmless() -> None:
    settings, quick = HttpSettings(url="http://host"), FastReplyParser(Limits())
    connection = Connection(Owner(), settings, asyncio.get_running_loop(), quick)
    connection.close()
    assert not connection.is_open


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("end", ["eof", "lost", "words"])
async def test_a_call_that_was_not_written_yet_is_known_not_to_be_sent(
    *, used: bool, end: str
) -> None:
    bench = Bench()
    if used:
        served = bench.start()
        bench.connection.data_received(plain_reply(b"served"))
        await served
    before = bench.wire.written
    bench.owner.flushes = False
    waiter = bench.start()
    match end:
        case "eof":
            bench.connection.eof_received()
        case "lost":
            bench.connection.connection_lost(None)
        case _:
            # As servers do that are about to close an idle connection.
            bench.connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert type(outcome(waiter)) is (StaleConnection if used else ConnectFailed)
    bench.connection.flush()
    assert bench.wire.written == before, "written although nobody waits"
    assert bench.wire.aborted


async def test_an_abandoned_call_that_was_not_written_yet_never_is() -> None:
    bench = Bench()
    bench.owner.flushes = False
    waiter = bench.start()
    waiter.cancel()
    bench.abandon(waiter)
    bench.connection.flush()
    assert (bench.wire.written, bench.wire.aborted) == (b"", True)
