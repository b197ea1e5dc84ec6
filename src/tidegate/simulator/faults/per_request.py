"""Faults that a request asks for.

By header: `x-fault-status: 500`, `x-fault-delay-seconds: 2`, and so on for each member of
`RequestFault` with `-` for `_`. The lines of a batch can't carry headers, so a body may ask in its
metadata, as an object or as a text that holds one:

    {"model": "sim", "messages": [], "metadata": {"tidegate_fault": {"status": 500, "times": 2}}}

A header wins over the body.
"""

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from tidegate.simulator.answers.seeded import digest as digest_of

HEADER_PREFIX = b"x-fault-"
BODIES_REMEMBERED_MAX = 100_000
DELAY_SECONDS_MAX = 86_400
_MARK = b"tidegate_fault"


class RequestFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault.

    Attributes:
        status: answer with this status (200 keeps the usual answer).
        delay_seconds: wait so much longer.
        retry_after: send this `retry-after` header along with the status.
        times: only for the first `times` requests with this very body; 0 for all of them.
        cut: break the connection off in the middle of the answer.
        cut_after: of a stream, after this many events.
        hang: never answer; the client must hang up.
        garbage: answer with bytes that are no JSON.
        reply: answer with this text instead of JSON of ours.
        echo: answer with the request's body, byte for byte.
    """

    status: int = 200
    delay_seconds: float = 0.0
    retry_after: str | None = None
    times: int = 0
    cut: bool = False
    cut_after: int = 1
    hang: bool = False
    garbage: bool = False
    reply: str | None = None
    echo: bool = False

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:  # noqa: PLR2004 -- HTTP's own bounds
            raise ValueError("status is from 200 to 599")
        if min(self.delay_seconds, self.times) < 0 or self.cut_after < 1:
            raise ValueError("delay_seconds and times are not negative, cut_after is 1 or more")
        if self.delay_seconds > DELAY_SECONDS_MAX:
            raise ValueError(f"delay_seconds is at most {DELAY_SECONDS_MAX}")


class _Metadata(msgspec.Struct, frozen=True):
    tidegate_fault: RequestFault | str | None = None


class _Body(msgspec.Struct, frozen=True):
    metadata: _Metadata | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_order = msgspec.json.Decoder(RequestFault, strict=False).decode


class RequestFaults:
    """Reads orders, and remembers how often each body with a limited one has come."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, int] = OrderedDict()

    def find(self, headers: Mapping[str, str], body: bytes) -> RequestFault | None:
        """Return what should go wrong with this request now, or None.

        Args:
            headers: the values of the fault headers by the name of the member.
            body: the request's body.

        Raises:
            msgspec.ValidationError: the order is not well-formed.
        """
        if headers:
            order = msgspec.convert(headers, RequestFault, strict=False)
        elif _MARK in body:
            found = _from_body(body)
            if found is None:
                return None
            order = found
        else:
            return None
        return order if self._is_due(order, body) else None

    def _is_due(self, order: RequestFault, body: bytes) -> bool:
        if not order.times:
            return True
        digest = digest_of(body)
        seen = self._seen.pop(digest, 0) + 1
        self._seen[digest] = seen
        if len(self._seen) > BODIES_REMEMBERED_MAX:
            self._seen.popitem(last=False)
        return seen <= order.times


def _from_body(body: bytes) -> RequestFault | None:
    metadata = _decode_body(body).metadata
    found = metadata.tidegate_fault if metadata else None
    return _decode_order(found) if isinstance(found, str) else found
