"""A call that failed is freed at once, body and all: none waits for the collector of cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testkit.servers.hostile import (
    Close,
    HostileServer,
    ReadRequest,
    Say,
    Script,
    answers,
    plain_reply,
)
from tidegate.domain.errors import ReplyBroken, ReplyTooLarge, TimedOut, UpstreamFault
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call, Upstream
from tidegate.upstreams.http1.reply_waiter import ReplyWaiter
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Limits, Timeouts

CALL = Call(path="/v1/x", body=b"{}")

FAULTS: dict[str, tuple[Script, type[UpstreamFault]]] = {
    "no reply": ((ReadRequest(), Close()), ReplyBroken),
    "half a reply": ((ReadRequest(), Say(plain_reply(b"whole")[:-1]), Close()), ReplyBroken),
    "no HTTP": (answers(b"220 hello\r\n\r\n"), ReplyBroken),
    "too large": (answers(plain_reply(b"b" * 9)), ReplyTooLarge),
    "too late": ((ReadRequest(),), TimedOut),
}


@contextmanager
def _nothing_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _fails(upstream: Upstream, kind: type[UpstreamFault]) -> None:
    """Call in vain; nothing of the call is left once the fault is forgotten."""
    with _nothing_collected():
        await expect_fault(upstream, CALL, kind)
        left = [it for it in gc.get_objects() if isinstance(it, ReplyWaiter)]
        assert not left, "the fault holds what waited for it, and is held by it"


@pytest.mark.parametrize("name", FAULTS)
async def test_over_http(name: str) -> None:
    script, kind = FAULTS[name]
    limits, timeouts = Limits(body_bytes_max=8), Timeouts(first_byte_seconds=0.05)
    async with HostileServer(script) as server:
        upstream = HttpUpstream(HttpSettings(url=server.url, limits=limits, timeouts=timeouts))
        await _fails(upstream, kind)
        await upstream.aclose()
