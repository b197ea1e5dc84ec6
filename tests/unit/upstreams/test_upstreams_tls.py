"""TLS: whom the upstream trusts, who it is, and what it says when that fails.

The certificates are made for these tests alone and guard nothing.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.domain.errors import ConnectFailed, TimedOut
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.testing.hostile_server import (
    Close,
    HostileServer,
    ReadRequest,
    Say,
    answers,
    plain_reply,
)
from tidegate.upstreams.base import Call
from tidegate.upstreams.http import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Timeouts, TlsSettings

Connect = Callable[[HttpSettings], HttpUpstream]

FOLDER = Path(__file__).parent / "certificates"
AUTHORITY = FOLDER / "authority.pem"
CALL = Call(path="/v1/x", body=b"{}")
PATIENT = Timeouts(total_seconds=20.0)
READ = ReadRequest()


def served(name: str = "server", *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FOLDER / f"{name}.pem")
    if asks:
        context.load_verify_locations(AUTHORITY)
        context.verify_mode = ssl.CERT_REQUIRED
        # With TLS 1.3 a client learns only afterwards that it was refused.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def trusting(server: HostileServer, **tls: Path | bool) -> HttpSettings:
    cert = tls.get("cert_file")
    return HttpSettings(
        url=server.url,
        timeouts=PATIENT,
        tls=TlsSettings(
            ca_file=None if tls.get("verify") is False else AUTHORITY,
            cert_file=cert if isinstance(cert, Path) else None,
            verify=tls.get("verify") is not False,
        ),
    )


async def test_calls_go_over_one_tls_connection(connect: Connect) -> None:
    large = b"b" * 500_000
    async with HostileServer(
        answers(plain_reply(b"a"), plain_reply(large)), tls=served()
    ) as server:
        upstream = connect(trusting(server))
        assert (await upstream.send(CALL)).body == b"a"
        assert (await upstream.send(Call(path="/v1/x", body=large))).body == large
        assert len(server.received) == 1


async def test_an_end_by_closing_is_seen_over_tls(connect: Connect) -> None:
    script = (READ, Say(b"HTTP/1.1 200 OK\r\n\r\nall of it"), Close())
    async with HostileServer(script, tls=served()) as server:
        assert (await connect(trusting(server)).send(CALL)).body == b"all of it"


@pytest.mark.parametrize("name", ["server", "elsewhere"])
async def test_a_stranger_is_not_trusted_unless_told(connect: Connect, name: str) -> None:
    async with HostileServer(answers(plain_reply(b"a")), tls=served(name)) as server:
        system = HttpSettings(url=server.url, timeouts=PATIENT)
        fault = await expect_fault(connect(system), CALL, ConnectFailed)
        assert "set tls.ca_file" in str(fault)
        assert (await connect(trusting(server, verify=False)).send(CALL)).body == b"a"


async def test_a_certificate_for_another_name_is_refused(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"a")), tls=served("elsewhere")) as server:
        fault = await expect_fault(connect(trusting(server)), CALL, ConnectFailed)
        assert "certificate" in str(fault)
        assert bytes(server.received[0] if server.received else b"") == b""


async def test_a_server_may_ask_who_we_are(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"a")), tls=served(asks=True)) as server:
        known = connect(trusting(server, cert_file=FOLDER / "client.pem"))
        assert (await known.send(CALL)).body == b"a"
        fault = await expect_fault(connect(trusting(server)), CALL, ConnectFailed)
        assert "tls.cert_file" in str(fault)


async def test_a_server_without_tls_is_told_apart(connect: Connect) -> None:
    async with HostileServer((Say(b"220 mail.example ESMTP\r\n"),)) as server:
        url = server.url.replace("http:", "https:")
        fault = await expect_fault(
            connect(HttpSettings(url=url, timeouts=PATIENT)), CALL, ConnectFailed
        )
        assert "check the scheme and port" in str(fault)


async def test_a_server_that_is_silent_in_the_handshake_meets_the_limit(connect: Connect) -> None:
    async with HostileServer(()) as server:
        url = server.url.replace("http:", "https:")
        upstream = connect(HttpSettings(url=url, timeouts=Timeouts(connect_seconds=0.1)))
        fault = await expect_fault(upstream, CALL, TimedOut)
        assert isinstance(fault, TimedOut)
        assert fault.phase == "connect"
        await server.closed[0].wait()
