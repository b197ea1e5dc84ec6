"""The heads of requests and replies over HTTP/2: ours built from an allow-list, theirs checked."""

import re
from collections.abc import Sequence

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
from tidegate.upstreams.http2.hpack import Field, pack
from tidegate.upstreams.settings import HttpSettings, Limits

HEADS_KEPT_MAX = 64  # Request heads remembered; there are only a few endpoints.
FIELDS_KEPT_MAX = 256  # Headers of replies remembered: servers repeat themselves.

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_STATUS = re.compile(rb"[1-5][0-9][0-9]")
# What speaks of a connection of HTTP/1.
_MISPLACED = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)


class RequestFields:
    """Packs the head of each request to one upstream."""

    def __init__(self, settings: HttpSettings) -> None:
        self._origin = settings.origin
        self._fixed = fixed_headers(settings)
        self._kept: dict[tuple[str, str], bytes] = {}

    def pack(self, call: Call) -> bytes:
        """Return the packed head of a call.

        Raises:
            Refused: the call's method, path or headers can't be sent. Nothing was sent.
        """
        head = self._kept.get((call.method, call.path)) or self._begin(call)
        fields = [*self._fixed.items()]
        if call.headers:
            for name, value in call.headers.items():
                if name not in CALL_HEADERS or not is_value(value):
                    raise refused_header(name)
            # The call knows better than the settings.
            fields = [*{**self._fixed, **call.headers}.items()]
        if call.body or call.method not in BODYLESS_METHODS:
            fields += [
                ("content-type", "application/json"),
                ("content-length", f"{len(call.body)}"),
            ]
        return head + pack(
            [(name.encode(), value.strip(" \t").encode("latin-1")) for name, value in fields]
        )

    def _begin(self, call: Call) -> bytes:
        check_target(call)
        origin = self._origin
        head = pack(
            [
                (b":method", call.method.encode()),
                (b":scheme", origin.scheme.encode()),
                (b":authority", origin.host_header.encode()),
                (b":path", f"{origin.prefix}{call.path}".encode()),
                (b"accept-encoding", b"identity"),
            ]
        )
        if len(self._kept) >= HEADS_KEPT_MAX:
            self._kept.clear()
        self._kept[call.method, call.path] = head
        return head


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
        lengths = set()
        for field in fields:
            name, value = self._kept.get(field) or self._check(field)
            headers[name] = value
            if name == "content-length":
                lengths.add(value)
        if len(lengths) > 1:
            raise ReplyBroken("The upstream's reply has two lengths.")
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
