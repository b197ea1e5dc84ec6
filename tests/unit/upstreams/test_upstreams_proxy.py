"""Model servers that are reached through an HTTP proxy."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.servers.hostile import Close, HostileServer, ReadRequest, Say, answers, plain_reply
from testkit.servers.proxy import HttpProxy
from tidegate.domain.errors import ConnectFailed, SettingsInvalid, TimedOut
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http1.upstream import HttpUpstream, ProxiedUpstream
from tidegate.upstreams.settings import HttpSettings, ProxySettings, Timeouts, TlsSettings
from tidegate.upstreams.transport.proxy_tunnel import ANSWER_BYTES_MAX

Connect = Callable[[HttpSettings], HttpUpstream]

FOLDER = Path(__file__).parent / "certificates"
CALL = Call(path="/v1/x", body=b"{}")
PATIENT = Timeouts(total_seconds=20.0)
READ = ReadRequest()
OPEN = b"HTTP/1.1 200 Open\r\n\r\n"


def served() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FOLDER / "server.pem")
    return context


def through(
    proxy: str, url: str, user: str | None = None, password: str | None = None
) -> HttpSettings:
    return HttpSettings(
        url=url,
        timeouts=PATIENT,
        tls=TlsSettings(ca_file=FOLDER / "authority.pem"),
        proxy=ProxySettings(url=proxy, user=user, password=password),
    )


async def test_calls_over_tls_go_through_a_tunnel(connect: Connect) -> None:
    async with (
        HostileServer(answers(plain_reply(b"a"), plain_reply(b"b")), tls=served()) as server,
        HttpProxy({"localhost:8443": server.port}, user="we", password="pass:word") as proxy,
    ):
        upstream = connect(through(proxy.url, "https://localhost:8443", "we", "pass:word"))
        assert (await upstream.send(CALL)).body == b"a"
        assert (await upstream.send(CALL)).body == b"b"
        # One way for both, and only the proxy gets our credentials.
        assert len(proxy.heads) == 1
        assert proxy.heads[0].startswith(
            "CONNECT localhost:8443 HTTP/1.1\r\nhost: localhost:8443\r\n"
        )
        assert b"proxy-authorization" not in server.received[0]
        assert server.received[0].startswith(b"POST /v1/x HTTP/1.1\r\nhost: localhost:8443\r\n")


async def test_calls_in_the_clear_are_handed_to_the_proxy() -> None:
    async with (
        HostileServer(answers(plain_reply(b"a"))) as server,
        HttpProxy({"models:80": server.port}, user="we", password="pw") as proxy,
    ):
        upstream = ProxiedUpstream(through(proxy.url, "http://models/prefix/v1", "we", "pw"))
        for _ in range(2):
            assert (await upstream.send(CALL)).body == b"a"
        assert [head.split("\r\n")[0] for head in proxy.heads] == [
            "POST http://models/prefix/v1/x HTTP/1.1"
        ] * 2
        assert server.received[0].startswith(b"POST /prefix/v1/x HTTP/1.1\r\nhost: models\r\n")
        assert b"proxy-authorization" not in server.received[0]
        # Both came on one connection to the proxy.
        assert (proxy.open_count, upstream.pool.open_count) == (1, 1)
        await upstream.aclose()


@pytest.mark.parametrize("url", ["http://models", "https://models"])
async def test_a_proxy_that_does_not_know_us_is_no_reply_of_the_model(url: str) -> None:
    async with HttpProxy({}, user="somebody", password="else") as proxy:
        for user, word in [("we", "does not accept proxy.user"), (None, "asks who we are")]:
            upstream = ProxiedUpstream(through(proxy.url, url, user, user))
            fault = await expect_fault(upstream, CALL, ConnectFailed)
            assert word in str(fault)
            await upstream.aclose()


async def test_a_proxy_that_will_not_go_there_says_so(connect: Connect) -> None:
    async with HttpProxy({}) as proxy:
        fault = await expect_fault(
            connect(through(proxy.url, "https://elsewhere")), CALL, ConnectFailed
        )
        assert "answered 502 when asked for a way to elsewhere" in str(fault)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        OPEN + b"and more",
        OPEN + OPEN,
        b"HTTP/1.1 200 OK\r\na: " + b"a" * ANSWER_BYTES_MAX,
    ],
)
async def test_what_is_no_proxy_is_recognised(connect: Connect, said: bytes) -> None:
    async with HostileServer((READ, Say(said), Close())) as server:
        upstream = connect(through(server.url, "https://models"))
        fault = await expect_fault(upstream, CALL, ConnectFailed)
        assert "does not answer as an HTTP proxy does" in str(fault)
        await server.closed[0].wait()


async def test_the_answer_of_a_proxy_may_come_in_any_pieces(connect: Connect) -> None:
    async with HostileServer((READ, Say(OPEN, 1), Close())) as server:
        # The way is open; that it leads nowhere is seen in the handshake.
        fault = await expect_fault(
            connect(through(server.url, "https://models")), CALL, ConnectFailed
        )
        assert "tls.version_min" in str(fault)


async def test_a_proxy_that_hangs_up_or_refuses_is_named(connect: Connect) -> None:
    async with HostileServer((READ, Close())) as server:
        fault = await expect_fault(
            connect(through(server.url, "https://models")), CALL, ConnectFailed
        )
        assert "proxy.url" in str(fault)
        url = server.url
    fault = await expect_fault(connect(through(url, "https://models")), CALL, ConnectFailed)
    assert "check proxy.url" in str(fault)


async def test_a_silent_proxy_meets_the_limit_and_is_left(connect: Connect) -> None:
    async with HostileServer(()) as server:
        settings = HttpSettings(
            url="https://models",
            timeouts=Timeouts(connect_seconds=0.1),
            proxy=ProxySettings(url=server.url),
        )
        fault = await expect_fault(connect(settings), CALL, TimedOut)
        assert isinstance(fault, TimedOut)
        assert fault.phase == "connect"
        await server.closed[0].wait()


async def test_cancelling_while_a_proxy_thinks_leaves_no_connection(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        upstream = connect(through(server.url, "https://models"))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(upstream.send(CALL), name="cancelled")
            while not server.received:  # noqa: ASYNC110 -- a list has no event to wait for
                await asyncio.sleep(0)
            task.cancel()
        await server.closed[0].wait()


async def test_no_proxy_is_taken_from_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with HostileServer(answers(plain_reply(b"a"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        assert (await upstream.send(CALL)).body == b"a"


@pytest.mark.parametrize(
    ("url", "user", "password", "word"),
    [
        ("https://proxy:3128", None, None, "in the clear"),
        ("http://proxy:3128/path", None, None, "without a path"),
        ("socks5://proxy:1080", None, None, "write it like http://proxy:3128"),
        ("http://we:pw@proxy", None, None, "set proxy.user"),
        ("http://proxy", None, "pw", "without proxy.user"),
        (None, "we", None, "without proxy.url"),
        (None, None, "pw", "without proxy.url"),
        ("http://proxy", "a:b", "pw", "colon"),
        ("http://proxy", "we", "p\nw", "line break"),
    ],
)
def test_settings_that_can_not_be_meant_are_refused(
    url: str | None, user: str | None, password: str | None, word: str
) -> None:
    with pytest.raises(SettingsInvalid, match=word):
        ProxySettings(url=url, user=user, password=password)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(ProxySettings(url="http://proxy", user="we", password="secret"))
