"""What the doctor reports of model servers, and of programs on the ports of `serve`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest

from testkit.servers.handler import HandlerServer
from tidegate.config import Server, Settings, UpstreamSettings
from tidegate.doctor.finding import Finding, Level
from tidegate.doctor.ports import examine_ports
from tidegate.doctor.upstreams import examine_upstreams
from tidegate.domain.errors import ReplyBroken
from tidegate.runtime.clock import SystemClock
from tidegate.testing.contract.stores import ManualClock
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import Handler

SECRET = "secret-of-this-test"


def models(*names: str) -> Reply:
    body = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
    return Reply(status=200, headers={}, body=json.dumps(body).encode())


def replies(reply: Reply, token: Reply | None = None) -> Handler:
    async def answer(call: Call) -> Reply:
        if call.path.endswith("/models"):
            return reply
        return token or Reply(status=200, headers={}, body=b"{}")

    return answer


async def asked(handler: Handler, *, model: str | None = None, probe: bool) -> list[Finding]:
    async with HandlerServer(handler) as served:
        server = UpstreamSettings(url=served.url, api_key=SECRET)
        one = Settings(upstream=server)
        settings = one if model is None else Settings(upstreams={model: server})
        return [finding async for finding in examine_upstreams(settings, probe=probe)]


def refused(status: int) -> Reply:
    return Reply(status=status, headers={}, body=b"no")


@pytest.mark.parametrize(
    ("reply", "level", "words"),
    [
        (models("a", "b"), Level.OK, "serves a, b."),
        (models(*"abcdefg"), Level.OK, "a, b, c, d, e and 2 more"),
        (models(), Level.WARN, "serves no model"),
        (refused(401), Level.FAIL, "refuses the key"),
        (refused(404), Level.WARN, "does not list its models"),
        (refused(500), Level.WARN, "answers 500"),
        (Reply(status=200, headers={}, body=b"<html>"), Level.WARN, "not with a list of models"),
    ],
)
async def test_what_a_model_server_answers_is_judged(
    reply: Reply, level: Level, words: str
) -> None:
    found = await asked(replies(reply), probe=False)
    assert [item.level for item in found] == [level]
    assert words in found[0].message
    assert SECRET not in repr(found)


async def test_a_server_that_breaks_off_is_a_failure() -> None:
    async def broken(call: Call) -> Reply:
        raise ReplyBroken("x")

    found = await asked(broken, probe=True)
    assert [item.level for item in found] == [Level.FAIL]


async def test_a_model_that_is_not_there_is_reported() -> None:
    found = await asked(replies(models("other")), model="mine", probe=False)
    assert found[0].level is Level.WARN
    assert "does not list the model 'mine'" in found[0].message
    assert (await asked(replies(models("mine")), model="mine", probe=False))[0].level is Level.OK


@pytest.mark.parametrize(
    ("token", "level", "words"),
    [
        (None, Level.OK, "gave one token"),
        (refused(400), Level.WARN, "answers a chat request with 400"),
    ],
)
async def test_a_probe_asks_for_one_token(token: Reply | None, level: Level, words: str) -> None:
    found = await asked(replies(models("a"), token), probe=True)
    assert [item.level for item in found] == [Level.OK, level]
    assert words in found[1].message


async def test_without_a_probe_no_model_is_asked() -> None:
    paths: list[str] = []

    async def noted(call: Call) -> Reply:
        paths.append(call.path)
        return models("a")

    await asked(noted, probe=False)
    assert paths == ["/v1/models"]


async def test_no_model_server_at_all_is_a_failure() -> None:
    found = [item async for item in examine_upstreams(Settings(), probe=False)]
    assert [item.level for item in found] == [Level.FAIL]


@asynccontextmanager
async def listening(reply: Reply | None) -> AsyncIterator[int]:
    """Give a port on which this reply comes, or nothing but a broken connection."""

    async def answer(call: Call) -> Reply:
        if reply is None:
            raise ReplyBroken("x")
        return reply

    async with HandlerServer(answer) as served:
        yield served.port


async def ports(api: Reply | None, operators: Reply | None) -> list[Finding]:
    async with listening(api) as port, listening(operators) as observability_port:
        server = Server(port=port, observability_port=observability_port)
        settings = Settings(server=server)
        return [item async for item in examine_ports(settings, ManualClock())]


def ours(seconds_ahead: float = 0.0) -> Reply:
    date = formatdate(ManualClock().now() + seconds_ahead, usegmt=True)
    return Reply(status=200, headers={"x-request-id": "req_1", "date": date}, body=b"{}")


def readiness(status: int, **checks: str) -> Reply:
    body = {"status": "ok" if status == 200 else "failing", "checks": checks}
    return Reply(status=status, headers={}, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("api", "level", "words"),
    [
        (ours(), Level.OK, "serves the API there; its clock"),
        (ours(60), Level.WARN, "+60 s"),
        (ours(-60), Level.WARN, "-60 s"),
        (Reply(status=200, headers={"x-request-id": "req_1"}, body=b""), Level.OK, "serves"),
        (refused(200), Level.FAIL, "other than Tidegate"),
        (None, Level.FAIL, "other than Tidegate"),
    ],
)
async def test_the_program_on_the_port_of_the_api_is_reported(
    api: Reply | None, level: Level, words: str
) -> None:
    found = (await ports(api, readiness(200, store="ok")))[0]
    assert found.level is level
    assert words in found.message


@pytest.mark.parametrize(
    ("operators", "level", "words"),
    [
        (readiness(200, store="ok"), Level.OK, "is ready"),
        (readiness(503, store="ok", blobs="No room."), Level.FAIL, "not ready: blobs: No room."),
        (refused(200), Level.FAIL, "other than Tidegate"),
        (None, Level.FAIL, "other than Tidegate"),
    ],
)
async def test_the_program_on_the_port_of_operators_is_reported(
    operators: Reply | None, level: Level, words: str
) -> None:
    found = (await ports(ours(), operators))[1]
    assert found.level is level
    assert words in found.message


async def test_free_ports_are_fine() -> None:
    async with listening(None) as port, listening(None) as other:
        settings = Settings(server=Server(port=port, observability_port=other))
    found = [item async for item in examine_ports(settings, SystemClock())]
    assert [item.level for item in found] == [Level.OK, Level.OK]
    assert all("free" in item.message for item in found)
