"""TLS: whom the upstream trusts, who it is, and what it says when that fails.

The certificates are made for these tests alone and guard nothing.
"""

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.servers.hostile import Close, HostileServer, ReadRequest, Say, answers, plain_reply
from tidegate.domain.errors import ConnectFailed, TimedOut
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Timeouts, TlsSettings, TlsVersion
from tidegate.upstreams.transport.tls import TlsContextCache, make_context

Connect = Callable[[HttpSettings], HttpUpstream]

FOLDER = Path(__file__).parent / "certificates"
AUTHORITY = FOLDER / "authority.pem"
ANOTHER_AUTHORITY = FOLDER / "another_authority.pem"
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
async def test_an_unknown_certificate_is_not_trusted_by_default(
    connect: Connect, name: str
) -> None:
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


async def test_a_server_may_ask_for_a_client_certificate(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"a")), tls=served(asks=True)) as server:
        known = connect(trusting(server, cert_file=FOLDER / "client.pem"))
        assert (await known.send(CALL)).body == b"a"
        fault = await expect_fault(connect(trusting(server)), CALL, ConnectFailed)
        assert "tls.cert_file" in str(fault)


async def test_a_server_without_tls_is_recognised(connect: Connect) -> None:
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


async def test_the_server_gets_the_name_it_was_called_by(connect: Connect) -> None:
    names: list[str | None] = []
    context = served()
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with HostileServer(answers(plain_reply(b"a")), tls=context) as server:
        settings = HttpSettings(
            url=f"https://localhost:{server.port}",
            timeouts=PATIENT,
            tls=TlsSettings(ca_file=AUTHORITY),
        )
        assert (await connect(settings).send(CALL)).body == b"a"
        assert names == ["localhost"]


@pytest.mark.parametrize(
    ("version_min", "server_max", "goes"),
    [
        (TlsVersion.TLS_1_2, ssl.TLSVersion.TLSv1_2, True),
        (TlsVersion.TLS_1_3, ssl.TLSVersion.TLSv1_2, False),
        (TlsVersion.TLS_1_3, ssl.TLSVersion.TLSv1_3, True),
    ],
)
async def test_an_older_version_than_the_least_is_refused(
    connect: Connect, version_min: TlsVersion, server_max: ssl.TLSVersion, *, goes: bool
) -> None:
    context = served()
    context.maximum_version = server_max
    async with HostileServer(answers(plain_reply(b"a")), tls=context) as server:
        settings = HttpSettings(
            url=server.url,
            timeouts=PATIENT,
            tls=TlsSettings(ca_file=AUTHORITY, version_min=version_min),
        )
        if goes:
            assert (await connect(settings).send(CALL)).body == b"a"
        else:
            fault = await expect_fault(connect(settings), CALL, ConnectFailed)
            assert "tls.version_min" in str(fault)


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    assert make_context(TlsSettings()).minimum_version is ssl.TLSVersion.TLSv1_2


# Files that are replaced


def put(source: str, place: Path) -> Path:
    """Replace a file as an operator's tools do: in one step."""
    aside = place.with_suffix(".aside")
    shutil.copy(FOLDER / source, aside)
    return aside.replace(place)


async def test_new_connections_show_the_new_certificate(connect: Connect, tmp_path: Path) -> None:
    cert = put("client.pem", tmp_path / "me.pem")
    context = served(asks=True)
    context.load_verify_locations(ANOTHER_AUTHORITY)
    shown: list[str] = []

    def note(tls: ssl.SSLObject) -> None:
        peer = tls.getpeercert()
        assert peer is not None
        shown.append(str(dict(row[0] for row in peer["subject"])["commonName"]))  # type: ignore[misc]  # typeshed's rows are unions

    reply = plain_reply(b"a", b"connection: close")
    async with HostileServer(answers(reply), tls=context, on_tls=note) as server:
        upstream = connect(trusting(server, cert_file=cert))
        await upstream.send(CALL)
        put("another_client.pem", cert)
        await upstream.send(CALL)
        assert shown == ["client", "another client"]


async def test_new_connections_trust_the_new_authority(connect: Connect, tmp_path: Path) -> None:
    authority = put("authority.pem", tmp_path / "ca.pem")
    async with HostileServer(answers(plain_reply(b"a")), tls=served("another_server")) as server:
        upstream = connect(
            HttpSettings(url=server.url, timeouts=PATIENT, tls=TlsSettings(ca_file=authority))
        )
        fault = await expect_fault(upstream, CALL, ConnectFailed)
        assert "set tls.ca_file" in str(fault)
        put("another_authority.pem", authority)
        assert (await upstream.send(CALL)).body == b"a"


async def test_files_that_become_unreadable_change_nothing_and_are_reported(
    connect: Connect, tmp_path: Path
) -> None:
    authority = put("authority.pem", tmp_path / "ca.pem")
    reply = plain_reply(b"a", b"connection: close")
    async with HostileServer(answers(reply), tls=served()) as server:
        tls = TlsSettings(ca_file=authority)
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT, tls=tls))
        assert (await upstream.send(CALL)).body == b"a"
        authority.write_text("half a certifi")
        assert (await upstream.send(CALL)).body == b"a"
        authority.unlink()
        assert (await upstream.send(CALL)).body == b"a"
    fault = await expect_fault(upstream, CALL, ConnectFailed)
    assert "What was read before is still used: tls.ca_file" in str(fault)


async def test_files_are_read_once_for_each_change(tmp_path: Path) -> None:
    authority = put("authority.pem", tmp_path / "ca.pem")
    files = TlsContextCache(TlsSettings(ca_file=authority))
    first = await files.current()
    assert await files.current() is first
    put("another_authority.pem", authority)
    second = await files.current()
    assert second is not first
    authority.unlink()
    assert await files.current() is second
    assert files.trouble is not None
    put("authority.pem", authority)
    assert await files.current() is not second
    assert files.trouble is None
