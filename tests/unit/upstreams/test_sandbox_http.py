"""The child process that stands in front of a real HTTP server."""

from pathlib import Path

import pytest

from testkit.servers.handler import HandlerServer
from tidegate.domain.errors import ConnectFailed, SandboxNotStarted
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.settings import HttpSettings, Limits, ProxySettings, Timeouts, TlsSettings
from tidegate.wiring import sandbox as composed
from tidegate.wiring.sandbox import http_sandbox, open_http_upstream

CERTIFICATE = Path(__file__).parent / "certificates" / "authority.pem"
MEMORY = 2**30


async def test_a_line_goes_to_the_server_and_back_byte_for_byte() -> None:
    seen: list[Call] = []
    body = b'{ "usage" : {"prompt_tokens":3},\n "x":1.0 }'

    async def handler(call: Call) -> Reply:
        seen.append(call)
        return Reply(status=200, headers={"x-request-id": "up"}, body=body)

    async with HandlerServer(handler) as server:
        settings = HttpSettings(url=server.url, api_key="the-secret", headers={"x-team": "blue"})
        cell = http_sandbox(settings, memory_bytes_max=MEMORY, start_seconds=30.0)
        try:
            call = Call(path="/v1/chat/completions", body=b'{"a":1}', headers={"x-request-id": "r"})
            reply = await cell.send(call)
            told = process(cell.pid, "cmdline") + process(cell.pid, "environ")
        finally:
            await cell.aclose()
    assert (reply.status, reply.body, reply.headers["x-request-id"]) == (200, body, "up")
    assert (seen[0].path, seen[0].body) == ("/v1/chat/completions", b'{"a":1}')
    assert seen[0].headers["authorization"] == "Bearer the-secret"
    assert seen[0].headers["x-team"] == "blue"
    assert b"tidegate.wiring.sandbox" in told
    assert b"the-secret" not in told
    assert server.url.encode() not in told


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b'{"usage":' + b"[" * 5_000, b'"\\ud800"', b"\xff", b'{"a":1e999}']
)
async def test_odd_replies_are_judged_and_come_back(body: bytes) -> None:
    async def handler(_: Call) -> Reply:
        return Reply(status=200, headers={}, body=body)

    async with HandlerServer(handler) as server:
        cell = http_sandbox(
            HttpSettings(url=server.url), memory_bytes_max=MEMORY, start_seconds=30.0
        )
        try:
            assert (await cell.send(Call(path="/v1/x", body=b"{}"))).body == body
        finally:
            await cell.aclose()


async def test_a_server_that_is_away_is_the_servers_fault() -> None:
    async with HandlerServer(never) as server:
        url = server.url
    cell = http_sandbox(HttpSettings(url=url), memory_bytes_max=MEMORY, start_seconds=30.0)
    try:
        with pytest.raises(ConnectFailed):
            await cell.send(Call(path="/v1/x", body=b"{}"))
    finally:
        await cell.aclose()


async def never(call: Call) -> Reply:
    raise AssertionError(call)


async def test_settings_that_can_not_be_used_start_no_child(tmp_path: Path) -> None:
    settings = HttpSettings(
        url="https://127.0.0.1:9", tls=TlsSettings(ca_file=tmp_path / "missing.pem")
    )
    cell = http_sandbox(settings, memory_bytes_max=MEMORY, start_seconds=30.0)
    with pytest.raises(SandboxNotStarted, match="SettingsInvalid at"):
        await cell.send(Call(path="/v1/x", body=b"{}"))
    await cell.aclose()


def test_every_setting_of_the_server_reaches_the_child() -> None:
    settings = HttpSettings(
        url="https://127.0.0.1:9/prefix",
        api_key="the-secret",
        headers={"x-team": "blue"},
        timeouts=Timeouts(total_seconds=7.0),
        limits=Limits(body_bytes_max=77),
        tls=TlsSettings(ca_file=CERTIFICATE, verify=True),
        proxy=ProxySettings(url="http://127.0.0.1:3128", user="we", password="pw"),
    )
    cell = http_sandbox(settings, memory_bytes_max=MEMORY, start_seconds=5.0)
    assert composed.decode_http_settings(cell.settings.detail) == settings
    assert cell.settings.answer_seconds == 7.0 + composed.HUNG_SECONDS
    assert cell.settings.answer_bytes_max >= 77 + 2 * settings.limits.header_bytes_max
    assert "the-secret" not in repr(cell.settings)


async def test_the_child_opens_what_was_described() -> None:
    cell = http_sandbox(
        HttpSettings(url="http://127.0.0.1:9"), memory_bytes_max=1, start_seconds=1.0
    )
    upstream = open_http_upstream(cell.settings.detail)
    await upstream.aclose()


def process(pid: int | None, what: str) -> bytes:
    assert pid is not None
    return Path(f"/proc/{pid}/{what}").read_bytes()
