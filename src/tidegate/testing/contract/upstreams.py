"""The contract of every upstream.

Subclass each class in a test module that has the fixtures `open_upstream`, which takes a handler
and returns an upstream whose calls that handler answers, and `unreachable`, an upstream that nobody
stands behind. Upstreams that reach their handler over a wire must wait at most a second for the
first byte and allow replies of 32 MiB.
"""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from collections.abc import Awaitable, Callable

from tidegate.domain.errors import (
    ConnectFailed,
    ReplyBroken,
    ReplyTooLarge,
    TimedOut,
    UpstreamFault,
)
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.upstreams.memory import Handler

OpenUpstream = Callable[[Handler], Awaitable[Upstream]]

PATH = "/v1/chat/completions"
# Spacing, key order, numbers and escapes that a decoder and encoder would not give back.
ODD_BODY = b'{ "b":1e400,"a" : 1180591620717411303424,\t"c":"\\u00e9\\/",  "a":0.10 }\n'
LARGE_BYTES = 8 * 2**20


async def echo(call: Call) -> Reply:
    """Answer with the body that came."""
    return Reply(status=200, headers={"content-type": "application/json"}, body=call.body)


async def expect_fault(upstream: Upstream, call: Call, kind: type[UpstreamFault]) -> UpstreamFault:
    """Assert that a call ends with this fault, and return it."""
    try:
        reply = await upstream.send(call)
    except kind as fault:
        return fault
    raise AssertionError(f"a reply of status {reply.status} in place of {kind.__name__}")


class SendContract:
    """The contract of `send` of calls and replies."""

    async def test_the_handler_sees_the_call(self, open_upstream: OpenUpstream) -> None:
        seen: list[Call] = []

        async def handler(call: Call) -> Reply:
            seen.append(call)
            return await echo(call)

        upstream = await open_upstream(handler)
        await upstream.send(Call(path=PATH, body=ODD_BODY, headers={"x-request-id": "one"}))
        assert [(call.method, call.path, call.body) for call in seen] == [("POST", PATH, ODD_BODY)]
        assert seen[0].headers["x-request-id"] == "one"

    async def test_a_call_without_a_body(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        reply = await upstream.send(Call(method="GET", path="/v1/models", body=b""))
        assert (reply.status, reply.body) == (200, b"")

    async def test_the_reply_comes_back_byte_for_byte(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        for body in [ODD_BODY, b"", b"not json \x00\xff\r\n\r\n", bytes(range(256)) * 9]:
            assert (await upstream.send(Call(path=PATH, body=body))).body == body

    async def test_headers_come_back_with_lower_case_names(
        self, open_upstream: OpenUpstream
    ) -> None:
        async def handler(_: Call) -> Reply:
            return Reply(
                status=200, headers={"x-request-id": "Ab c=é", "retry-after": "7"}, body=b""
            )

        reply = await (await open_upstream(handler)).send(Call(path=PATH, body=b"{}"))
        assert reply.headers["x-request-id"] == "Ab c=é"
        assert reply.headers["retry-after"] == "7"

    async def test_large_bodies_go_both_ways(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        body = bytes(range(256)) * (LARGE_BYTES // 256)
        assert (await upstream.send(Call(path=PATH, body=body))).body == body

    async def test_any_status_is_a_reply(self, open_upstream: OpenUpstream) -> None:
        async def handler(call: Call) -> Reply:
            return Reply(status=int(call.body), headers={}, body=b"why" + call.body)

        upstream = await open_upstream(handler)
        for status in [200, 201, 302, 400, 401, 404, 429, 500, 503, 599]:
            reply = await upstream.send(Call(path=PATH, body=b"%d" % status))
            assert (reply.status, reply.body) == (status, b"why%d" % status)

    async def test_calls_run_side_by_side_and_keep_their_own_replies(
        self, open_upstream: OpenUpstream
    ) -> None:
        arrived: list[bytes] = []
        everyone = asyncio.Event()

        async def handler(call: Call) -> Reply:
            arrived.append(call.body)
            if len(arrived) == 50:
                everyone.set()
            await everyone.wait()
            return await echo(call)

        upstream = await open_upstream(handler)
        bodies = [b"%d" % number for number in range(50)]
        async with asyncio.timeout(20):
            replies = await asyncio.gather(
                *(upstream.send(Call(path=PATH, body=body)) for body in bodies)
            )
        assert [reply.body for reply in replies] == bodies
        assert sorted(arrived) == sorted(bodies)


class FaultContract:
    """What `send` raises when no usable reply comes."""

    async def test_nobody_there(self, unreachable: Upstream) -> None:
        fault = await expect_fault(unreachable, Call(path=PATH, body=b"{}"), ConnectFailed)
        assert str(fault).endswith(".")

    async def test_faults_keep_their_kind(self, open_upstream: OpenUpstream) -> None:
        faults = {
            b"broken": ReplyBroken("The other side broke off."),
            b"large": ReplyTooLarge("The reply was too large."),
            b"late": TimedOut("Nothing came.", phase="first_byte"),
        }

        async def handler(call: Call) -> Reply:
            raise faults[call.body]

        upstream = await open_upstream(handler)
        for body, fault in faults.items():
            await expect_fault(upstream, Call(path=PATH, body=body), type(fault))

    async def test_a_time_out_names_its_phase(self, open_upstream: OpenUpstream) -> None:
        async def handler(_: Call) -> Reply:
            raise TimedOut("Nothing came.", phase="first_byte")

        upstream = await open_upstream(handler)
        fault = await expect_fault(upstream, Call(path=PATH, body=b"{}"), TimedOut)
        assert isinstance(fault, TimedOut)
        assert fault.phase == "first_byte"

    async def test_a_fault_leaves_the_next_call_alone(self, open_upstream: OpenUpstream) -> None:
        async def handler(call: Call) -> Reply:
            if call.body == b"bad":
                raise ReplyBroken("The other side broke off.")
            return await echo(call)

        upstream = await open_upstream(handler)
        for _ in range(5):
            await expect_fault(upstream, Call(path=PATH, body=b"bad"), ReplyBroken)
            assert (await upstream.send(Call(path=PATH, body=b"good"))).body == b"good"


class CancelContract:
    """What cancelling `send` promises."""

    async def test_a_cancelled_call_answers_no_other(self, open_upstream: OpenUpstream) -> None:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def handler(call: Call) -> Reply:
            if call.body == b"slow":
                arrived.set()
                await go_on.wait()
            return await echo(call)

        upstream = await open_upstream(handler)
        for _ in range(3):
            arrived.clear()
            go_on.clear()
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                slow = group.create_task(
                    upstream.send(Call(path=PATH, body=b"slow")), name="the slow call"
                )
                await arrived.wait()
                slow.cancel()
            go_on.set()
            assert slow.cancelled()
            replies = await asyncio.gather(
                *(upstream.send(Call(path=PATH, body=b"%d" % number)) for number in range(5))
            )
            assert [reply.body for reply in replies] == [b"%d" % number for number in range(5)]

    async def test_a_call_cancelled_at_once_does_no_harm(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        for turns in range(12):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(
                    upstream.send(Call(path=PATH, body=b"cancelled")), name="a call to cancel"
                )
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
            assert (await upstream.send(Call(path=PATH, body=b"next"))).body == b"next"


class CloseContract:
    """The contract of `aclose`."""

    async def test_closing_twice_is_harmless(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        await upstream.send(Call(path=PATH, body=b"{}"))
        await upstream.aclose()
        await upstream.aclose()

    async def test_closing_before_any_call_is_harmless(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        await upstream.aclose()

    async def test_nothing_is_sent_after_closing(self, open_upstream: OpenUpstream) -> None:
        upstream = await open_upstream(echo)
        await upstream.aclose()
        await expect_fault(upstream, Call(path=PATH, body=b"{}"), ConnectFailed)
