"""Checks of the two ports: whether they are free, or used by a Tidegate that is ready."""

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from tidegate.client.sanitize import sanitize
from tidegate.config import Settings
from tidegate.doctor.finding import Finding, fail, ok, warn
from tidegate.runtime.clock import Clock

ANSWER_SECONDS_MAX = 5.0
SKEW_SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 -- read, not bound
_OK = 200


class _Readiness(msgspec.Struct):
    status: str
    checks: dict[str, str] = {}


async def examine_ports(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Check what listens on the ports of `serve`."""
    server = settings.server
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS_MAX, trust_env=False) as http:
        yield await _api(http, _url(server.host, server.port, "/v1/models"), clock, server.port)
        ready = _url(server.host, server.observability_port, "/ready")
        yield await _operators(http, ready, server.observability_port)


async def _api(http: httpx.AsyncClient, url: str, clock: Clock, port: int) -> Finding:
    area = f"port {port}"
    try:
        reply = await http.get(url)
    except httpx.ConnectError:
        return ok(area, "It is free for the API; no server runs there now.")
    except httpx.HTTPError as exc:
        return _stranger(area, type(exc).__name__, "server.port")
    if not reply.headers.get("x-request-id", "").startswith("req_"):
        return _stranger(area, sanitize(reply.headers.get("server", "no name"), 60), "server.port")
    skew = _skew(reply, clock)
    if skew is not None and abs(skew) > SKEW_SECONDS_MAX:
        return warn(
            area,
            f"A Tidegate serves the API there, and its clock is {skew:+.0f} s from this one.",
            "Synchronize the clocks (NTP): windows and leases depend on them.",
        )
    shown = "" if skew is None else f"; its clock is within {max(1.0, abs(skew)):.0f} s"
    return ok(area, f"A Tidegate serves the API there{shown}.")


async def _operators(http: httpx.AsyncClient, url: str, port: int) -> Finding:
    area = f"port {port}"
    try:
        reply = await http.get(url)
        found = msgspec.json.decode(reply.content[:ANSWER_BYTES_MAX], type=_Readiness)
    except httpx.ConnectError:
        return ok(area, "It is free for health and metrics; no server runs there now.")
    except (httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        return _stranger(area, type(exc).__name__, "server.observability_port")
    if reply.status_code == _OK:
        return ok(area, "A Tidegate answers there, and is ready.")
    failing = "; ".join(
        f"{sanitize(name, 40)}: {sanitize(reason, 200)}"
        for name, reason in found.checks.items()
        if reason != "ok"
    )
    return fail(area, f"A Tidegate answers there, and is not ready: {failing}", "Fix that.")


def _stranger(area: str, who: str, setting: str) -> Finding:
    return fail(
        area, f"A program other than Tidegate listens there ({who}).", f"Stop it, or set {setting}."
    )


def _skew(reply: httpx.Response, clock: Clock) -> float | None:
    """Return how far the server's clock is ahead; its header has a resolution of a second."""
    try:
        date = parsedate_to_datetime(reply.headers.get("date", ""))
    except ValueError:
        return None
    return date.timestamp() - clock.now()


def _url(host: str, port: int, path: str) -> str:
    name = _ANY.get(host, host)
    return f"http://[{name}]:{port}{path}" if ":" in name else f"http://{name}:{port}{path}"
