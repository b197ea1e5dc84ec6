"""The heads of requests and replies over HTTP/2: ours built from an allow-list, theirs checked."""

import re
from collections.abc import Sequence

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from tidegate.domain.errors import ReplyBroken, ReplyTooLarge
from tidegate.upstreams.base import Call
from tidegate.upstreams.framing import STATUS_MAX, STATUS_MIN
from tidegate.upstreams.header_rules import CALL_HEADERS, is_value
from tidegate.upstreams.headers import (
    BODYLESS_METHODS,
    check_target,
    fixed_headers,
    refused_header,
)
from tidegate.upstreams.settings import HttpSettings, Limits

HEADS_KEPT_MAX = 64  # Request heads remembered; there are only a few endpoints.
FIELDS_KEPT_MAX = 256  # Headers of replies remembered: servers repeat themselves.

Field = tuple[bytes, bytes]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_STATUS = re.compile(rb"[1-5][0-9][0-9]")
_PLAIN = frozenset({"accept", "user-agent"})
# What speaks of a connection of HTTP/1.
_MISPLACED = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)


class RequestFields:
    """Makes the head of each request to one upstream.

    What is the same for every call is said once on a connection, and then by a number. What differs
    from call to call, or comes from the settings and may be a key, nobody on the way may remember.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._origin = settings.origin
        self._fixed = {
            name: _plain(name, value) if name in _PLAIN else _once(name, value)
            for name, value in fixed_headers(settings).items()
        }
        self._kept: dict[tuple[str, str], list[HeaderTuple]] = {}

    def of(self, call: Call) -> list[HeaderTuple]:
        """Return the head of a call.

        Raises:
            Refused: the call's method, path or headers can't be sent. Nothing was sent.
        """
        begin = self._kept.get((call.method, call.path)) or self._begin(call)
        fields = self._fixed
        if call.headers:
            for name, value in call.headers.items():
                if name not in CALL_HEADERS or not is_value(value):
                    raise refused_header(name)
            # The call knows better than the settings.
            fields = {**fields, **{name: _once(name, it) for name, it in call.headers.items()}}
        head = [*begin, *fields.values()]
        if call.body or call.method not in BODYLESS_METHODS:
            head += [_JSON, _once("content-length", f"{len(call.body)}")]
        return head

    def _begin(self, call: Call) -> list[HeaderTuple]:
        check_target(call)
        origin = self._origin
        begin = [
            _plain(":method", call.method),
            _plain(":scheme", origin.scheme),
            _plain(":authority", origin.host_header),
            _plain(":path", f"{origin.prefix}{call.path}"),
            _plain("accept-encoding", "identity"),
        ]
        if len(self._kept) >= HEADS_KEPT_MAX:
            self._kept.clear()
        self._kept[call.method, call.path] = begin
        return begin


def _plain(name: str, value: str) -> HeaderTuple:
    return HeaderTuple(*_encoded(name, value))


def _once(name: str, value: str) -> HeaderTuple:
    return NeverIndexedHeaderTuple(*_encoded(name, value))


def _encoded(name: str, value: str) -> Field:
    return name.encode(), value.strip(" \t").encode("latin-1")


_JSON = _plain("content-type", "application/json")


class ReplyFields:
    """Checks the heads of the replies on one connection."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[Field, tuple[str, str]] = {}

    def read(self, fields: Sequence[Field]) -> tuple[int, dict[str, str]]:
        """Return the status and the headers; of repeated ones the last counts.

        Raises:
            ReplyBroken: they are not those of a reply.
            ReplyTooLarge: there are too many.
        """
        size = sum(len(name) + len(value) + 4 for name, value in fields)
        if size > self._limits.header_bytes_max:
            raise head_too_large(self._limits.header_bytes_max)
        name, value = fields[0] if fields else (b"", b"")
        if name != b":status" or _STATUS.fullmatch(value) is None:
            raise ReplyBroken("The upstream's reply does not begin with a status.")
        status = int(value)
        assert STATUS_MIN <= status <= STATUS_MAX, status
        return status, self.headers(fields[1:])

    def headers(self, fields: Sequence[Field]) -> dict[str, str]:
        """Return plain headers, as at the begin or the end of a reply; as `read` does."""
        if len(fields) > self._limits.header_count_max:
            raise ReplyTooLarge(
                f"The reply has more than {self._limits.header_count_max} headers "
                "(header_count_max)."
            )
        headers: dict[str, str] = {}
        for field in fields:
            name, value = self._kept.get(field) or self._check(field)
            headers[name] = value
        return headers

    def _check(self, field: Field) -> tuple[str, str]:
        raw_name, raw_value = field
        value = raw_value.decode("latin-1").strip(" \t")
        if _NAME.fullmatch(raw_name) is None or not is_value(value):
            raise ReplyBroken("A header of the upstream's reply can't be read.")
        name = raw_name.decode()
        if name in _MISPLACED:
            raise ReplyBroken(
                f"The upstream's reply has the header '{name}', which HTTP/2 forbids."
            )
        if name not in {"content-length", "x-request-id", "date"}:
            if len(self._kept) >= FIELDS_KEPT_MAX:
                self._kept.clear()
            self._kept[field] = (name, value)
        return name, value


def head_too_large(bytes_max: int) -> ReplyTooLarge:
    """Return the fault of a reply whose headers pass their bound."""
    return ReplyTooLarge(
        f"The reply's headers are larger than {bytes_max} bytes (header_bytes_max)."
    )
