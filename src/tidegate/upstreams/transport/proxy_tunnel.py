"""Tunnels through an HTTP proxy (CONNECT), and our credentials for it."""

import asyncio
import base64
import re
import socket

from tidegate.domain.errors import ConnectFailed
from tidegate.upstreams.settings import Origin, ProxySettings

# The largest answer of a proxy to CONNECT.
ANSWER_BYTES_MAX = 16 * 1024
STATUS_PROXY_CREDENTIALS = 407

_ANSWER = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")


def credentials_line(proxy: ProxySettings) -> str:
    """Return the header with our credentials for a proxy; empty if there are none."""
    if proxy.user is None:
        return ""
    pair = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return f"proxy-authorization: Basic {pair}\r\n"


def refused_credentials(proxy: ProxySettings) -> ConnectFailed:
    """Return the error for a proxy that refuses our credentials."""
    given = "does not accept proxy.user and proxy.password" if proxy.user else "asks who we are"
    return ConnectFailed(
        f"The proxy {proxy.origin.host_header} {given}: set both to what it knows."
    )


async def open_tunnel(sock: socket.socket, proxy: ProxySettings, origin: Origin) -> None:
    """Ask the proxy at the other end of a socket to connect to a model server.

    Raises:
        ConnectFailed: the proxy refused.
        OSError: the connection to the proxy broke.
    """
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    request = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{credentials_line(proxy)}\r\n"
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request.encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        if len(answer) > ANSWER_BYTES_MAX:
            raise _invalid_answer(proxy)
        piece = await loop.sock_recv(sock, ANSWER_BYTES_MAX)
        if not piece:
            raise ConnectionResetError("the proxy hung up")
        answer += piece
    _check_answer(answer, proxy, origin)


def _check_answer(answer: bytes, proxy: ProxySettings, origin: Origin) -> None:
    match = _ANSWER.match(answer)
    if match is None:
        raise _invalid_answer(proxy)
    status = int(match[1])
    if status == STATUS_PROXY_CREDENTIALS:
        raise refused_credentials(proxy)
    if status // 100 != 2:  # noqa: PLR2004 -- as HTTP has it
        raise ConnectFailed(
            f"The proxy {proxy.origin.host_header} answered {status} when asked for a way to "
            f"{origin.host_header}: check what it allows."
        )
    # A server sends nothing before the client does: further bytes can only come from the proxy.
    if not answer.endswith(b"\r\n\r\n") or answer.count(b"\r\n\r\n") > 1:
        raise _invalid_answer(proxy)


def _invalid_answer(proxy: ProxySettings) -> ConnectFailed:
    return ConnectFailed(
        f"The proxy {proxy.origin.host_header} does not answer as an HTTP proxy does: check "
        "proxy.url."
    )
