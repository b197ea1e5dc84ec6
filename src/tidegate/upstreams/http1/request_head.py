"""The head of a request, built from an allow-list of headers; every value is checked."""

import re
from collections.abc import Mapping

from tidegate.domain.errors import Refused
from tidegate.upstreams.base import Call
from tidegate.upstreams.header_rules import CALL_HEADERS, is_value
from tidegate.upstreams.settings import HttpSettings
from tidegate.upstreams.transport.proxy_tunnel import credentials_line

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BODYLESS_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
USER_AGENT = "tidegate"
LINES_KEPT_MAX = 64  # Request lines remembered; there are only a few endpoints.

_PATH = re.compile(r"/[\x21-\x22\x24-\x7e]*")


class RequestHeads:
    """Builds the head of each request to one upstream."""

    def __init__(self, settings: HttpSettings) -> None:
        origin = settings.origin
        self._target = origin.prefix
        through = ""
        if settings.proxied_by is not None and origin.scheme == "http":
            # The proxy needs the target of the call and our credentials.
            self._target = f"http://{origin.host_header}{origin.prefix}"
            through = credentials_line(settings.proxied_by)
        self._fixed = fixed = fixed_headers(settings)
        self._always = f"host: {origin.host_header}\r\naccept-encoding: identity\r\n{through}"
        self._always_fixed = self._always + _lines(fixed)
        # Configured headers that a call may override.
        self._contested = CALL_HEADERS.intersection(fixed)
        self._starts: dict[tuple[str, str], str] = {}

    def head(self, call: Call) -> bytes:
        """Return everything before the body, including the blank line.

        Raises:
            Refused: the call's method, path or headers can't be sent. Nothing was sent.
        """
        start = self._starts.get((call.method, call.path)) or self._start(call)
        rest = self._extra(call.headers) if call.headers else self._always_fixed
        if call.body or call.method not in BODYLESS_METHODS:
            length = len(call.body)
            text = (
                f"{start}{rest}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            )
        else:
            text = f"{start}{rest}\r\n"
        return text.encode("latin-1")

    def _start(self, call: Call) -> str:
        check_target(call)
        start = f"{call.method} {self._target}{call.path} HTTP/1.1\r\n"
        if len(self._starts) >= LINES_KEPT_MAX:
            self._starts.clear()
        self._starts[call.method, call.path] = start
        return start

    def _extra(self, headers: Mapping[str, str]) -> str:
        if self._contested and not self._contested.isdisjoint(headers):
            # The header of the call overrides the configured one.
            kept = {name: value for name, value in self._fixed.items() if name not in headers}
            text = self._always + _lines(kept)
        else:
            text = self._always_fixed
        for name, value in headers.items():
            if name not in CALL_HEADERS or not is_value(value):
                raise refused_header(name)
            text += f"{name}: {value}\r\n"
        return text


def fixed_headers(settings: HttpSettings) -> dict[str, str]:
    """Return the headers that the settings add to every call, with lower-case names."""
    fixed = {
        "accept": "application/json",
        "user-agent": USER_AGENT,
        **{name.lower(): value for name, value in settings.headers.items()},
    }
    if settings.api_key is not None:
        fixed["authorization"] = f"Bearer {settings.api_key}"
    return fixed


def check_target(call: Call) -> None:
    """Check the method and path of a call.

    Raises:
        Refused: the method or path can't be sent.
    """
    if call.method not in METHODS:
        raise Refused(f"An upstream can't be called by {call.method!r}.", param="method")
    if _PATH.fullmatch(call.path) is None:
        raise Refused(
            "The path of a call must begin with '/' and hold no blank, control character, '#' "
            "or letter outside ASCII.",
            param="path",
        )


def refused_header(name: str) -> Refused:
    """Return the error for a header that is not sent because of its name or its value."""
    if name not in CALL_HEADERS:
        return Refused(
            f"A call may not carry the header {name!r}: allowed are "
            f"{', '.join(sorted(CALL_HEADERS))}.",
            param="headers",
        )
    return Refused(
        f"The header '{name}' of a call holds a line break, a control character or a "
        "letter outside Latin-1.",
        param=f"headers.{name}",
    )


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
