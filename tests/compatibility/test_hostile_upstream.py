"""A hostile model server: with any reply, each line ends once, and its error gives the cause."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from testkit.servers.hostile import (
    Await,
    Close,
    HostileServer,
    ReadRequest,
    Reset,
    Say,
    Script,
    answers,
    plain_reply,
)
from testkit.users.sdk import SdkUser, sdk_user
from tidegate.domain.retry import Retry
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.processor.settings import Claims, InFlightLimits, Settings
from tidegate.testing.deployment import request_line
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Limits, Timeouts

READ = ReadRequest()
SOUND = b'{"id":"mine"}'
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
MEGABYTE = b"%x\r\n%b\r\n" % (2**20, b" " * 2**20)
FIFTY = 50 * 2**20
ONE_AT_A_TIME = Settings(
    claims=Claims(poll_seconds=0.02),
    limits=InFlightLimits(in_flight_max=1),
    retry=Retry(attempts_max=2, unsure_max=2, delay_seconds_min=0.01, delay_seconds_max=0.02),
)


@dataclass(frozen=True, slots=True)
class Enemy:
    """What each connection plays, and what becomes of the line: the code, words of the message."""

    script: Script
    code: str
    words: str


ENEMIES = {
    "truncated body": Enemy(
        (READ, Say(plain_reply(SOUND)[:-2]), Close()), "upstream_reply_broken", "in the middle"
    ),
    "not JSON": Enemy(
        (READ, Say(plain_reply(b"<html>oops"))), "invalid_reply", "200 with a body that is not"
    ),
    "deep JSON": Enemy(
        (READ, Say(plain_reply(b"[" * 100_000 + b"]" * 100_000))), "invalid_reply", "not valid JSON"
    ),
    "50 MB, announced": Enemy(
        (READ, Say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % FIFTY)),
        "reply_too_large",
        "body_bytes_max",
    ),
    "50 MB, in chunks": Enemy(
        (READ, Say(CHUNKED), *[Say(MEGABYTE)] * 50), "reply_too_large", "body_bytes_max"
    ),
    "endless headers": Enemy(
        (READ, Say(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000)),
        "reply_too_large",
        "header_count_max",
    ),
    "an endless header": Enemy(
        (READ, Say(b"HTTP/1.1 200 OK\r\na: " + b"v" * 2**20)), "reply_too_large", "header_bytes_max"
    ),
    "reset": Enemy((READ, Reset()), "upstream_reply_broken", "without a reply"),
    "silence": Enemy((READ, Await(asyncio.Event())), "upstream_timeout", "first_byte_seconds"),
    "a byte a second": Enemy(
        (READ, Say(plain_reply(SOUND), piece_bytes=1, gap_seconds=0.1)),
        "upstream_timeout",
        "total_seconds",
    ),
    "compressed": Enemy(
        (READ, Say(plain_reply(SOUND, b"content-encoding: gzip"))),
        "upstream_reply_broken",
        "compression",
    ),
    "no HTTP": Enemy((READ, Say(b"SSH-2.0-x\r\n\r\n")), "upstream_reply_broken", "HTTP/1"),
}


@asynccontextmanager
async def user_against(*scripts: Script) -> AsyncIterator[tuple[SdkUser, HostileServer]]:
    timeouts = Timeouts(first_byte_seconds=0.5, total_seconds=1.0)
    async with HostileServer(*scripts) as server:
        upstream = HttpUpstream(
            HttpSettings(url=server.url, timeouts=timeouts, limits=Limits(connections_max=1))
        )
        try:
            routes = Routes(default=Endpoint("upstream", upstream))
            async with sdk_user(routes, processor=ONE_AT_A_TIME) as user:
                yield user, server
        finally:
            await upstream.aclose()


@pytest.mark.parametrize("name", ENEMIES)
async def test_each_enemy_costs_its_line_alone(name: str) -> None:
    enemy = ENEMIES[name]
    async with user_against(enemy.script) as (user, _):
        batch = await user.end_of((await user.submit([request_line("a")])).id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 1, "completed": 0, "failed": 1}
        assert batch.output_file_id is None
        line = (await user.results(batch.error_file_id))["a"]
    assert line.response is None
    assert line.error is not None
    assert line.error.code == enemy.code
    assert enemy.words in line.error.message
    assert line.error.message.endswith(".")


async def test_a_success_with_an_error_inside_stays_what_the_server_said() -> None:
    """It said 200: the line is in the output, byte for byte, and its reader sees the error."""
    body = b'{"error": {"message": "out of memory", "code": 500}}'
    async with user_against(answers(plain_reply(body))) as (user, _):
        batch = await user.end_of((await user.submit([request_line("a")])).id)
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 1, "completed": 1, "failed": 0}
        assert b'"status_code":200' in await user.content(batch.output_file_id or "")
        assert b'"body":' + body in await user.content(batch.output_file_id or "")


@pytest.mark.parametrize(
    "behind", [plain_reply(b'{"id":"poison"}'), b" and more"], ids=["another reply", "more bytes"]
)
async def test_what_follows_a_reply_is_never_the_answer_to_another_request(behind: bytes) -> None:
    """A reply longer than its length, or two at once: the next line asks on a new connection."""
    spoilt = answers(plain_reply(SOUND) + behind)
    async with user_against(spoilt) as (user, server):
        lines = [request_line(str(number)) for number in range(5)]
        batch = await user.end_of((await user.submit(lines)).id)
        results = await user.results(batch.output_file_id)
        assert sorted(results) == ["0", "1", "2", "3", "4"]
        content = await user.content(batch.output_file_id or "")
        assert content.count(SOUND) == 5
        assert b"poison" not in content
        assert len(server.received) == 5
