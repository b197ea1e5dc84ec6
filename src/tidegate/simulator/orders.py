"""Faults on order: a request says itself what should go wrong with it.

By header: `x-fault-status: 500`, `x-fault-delay-seconds: 2`, and so on for each member of `Order`
with `-` for `_`. The lines of a batch can't carry headers, so a body may say the same in its
metadata, as an object or as a text that holds one:

    {"model": "sim", "messages": [], "metadata": {"tidegate_fault": {"status": 500, "times": 2}}}

A header wins over the body.
"""

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

HEADER_PREFIX = b"x-fault-"
BODIES_REMEMBERED_MAX = 100_000
_MARK = b"tidegate_fault"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault.

    Attributes:
        status: answer with this status (200 keeps the usual answer).
        delay_seconds: wait so much longer.
        retry_after: send this `retry-after` header along with the status.
        times: only for the first so many requests with this very body; 0 for all of them.
        cut: break the connection off in the middle of the answer.
        reply: answer with this text instead of JSON of ours.
        echo: answer with the request's body, byte for byte.
    """

    status: int = 200
    delay_seconds: float = 0.0
    retry_after: str | None = None
    times: int = 0
    cut: bool = False
    reply: str | None = None
    echo: bool = False

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599 or self.delay_seconds < 0 or self.times < 0:  # noqa: PLR2004 -- HTTP's own bounds
            raise ValueError("status is from 200 to 599, delay_seconds and times are not negative")


class _Metadata(msgspec.Struct, frozen=True):
    tidegate_fault: Order | str | None = None


class _Body(msgspec.Struct, frozen=True):
    metadata: _Metadata | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_order = msgspec.json.Decoder(Order, strict=False).decode


class Orders:
    """Reads orders, and remembers how often each body with a limited one has come."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, int] = OrderedDict()

    def find(self, headers: Mapping[str, str], body: bytes, digest: int) -> Order | None:
        """Return what should go wrong with this request now, or None.

        Args:
            headers: the values of the fault headers by the name of the member.
            body: the request's body.
            digest: what tells this body from another.

        Raises:
            msgspec.ValidationError: the order is not well-formed.
        """
        if headers:
            order = msgspec.convert(headers, Order, strict=False)
        elif _MARK in body:
            found = _from_body(body)
            if found is None:
                return None
            order = found
        else:
            return None
        return order if self._is_due(order, digest) else None

    def _is_due(self, order: Order, digest: int) -> bool:
        if not order.times:
            return True
        seen = self._seen.pop(digest, 0) + 1
        self._seen[digest] = seen
        if len(self._seen) > BODIES_REMEMBERED_MAX:
            self._seen.popitem(last=False)
        return seen <= order.times


def _from_body(body: bytes) -> Order | None:
    metadata = _decode_body(body).metadata
    found = metadata.tidegate_fault if metadata else None
    return _decode_order(found) if isinstance(found, str) else found
