"""The one table from errors to HTTP: which status, which type, which headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.access.base import Unauthenticated
from tidegate.domain.errors import (
    ClaimLost,
    Conflict,
    NotFound,
    Refused,
    StorageFull,
    StoreUnavailable,
    TooLarge,
    UpstreamFault,
)
from tidegate.wire.objects import encode_error

RETRY_SECONDS = 2


class UnknownRoute(NotFound):
    """No such path is served."""


class WrongMethod(Refused):
    """The path is served, but not with this method."""

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message, code="method_not_supported")
        self.allowed = allowed


class ForeignPage(Refused):
    """A web page of another site asks, and no key says that it may."""


class EncodingUnsupported(Refused):
    """The body is compressed, which is not understood here."""


class HeadersTooLarge(Refused):
    """The head of the request passes a bound."""


class ClientTooSlow(Refused):
    """The body stopped coming."""


class RangeUnsatisfiable(Refused):
    """The range lies outside the file."""

    def __init__(self, message: str, *, length: int) -> None:
        super().__init__(message)
        self.length = length


class StateChanged(Refused):
    """The file is no longer, or not yet, in the state that If-Match names."""


class ClientGone(Exception):
    """The client closed the connection: nobody is there to be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """An error as HTTP says it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Return whether the fault is ours, so that it belongs in the log."""
        return self.status >= _OURS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    status: int
    kind: str = "invalid_request_error"
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None  # Replaces the error's own words.


_OURS = 500
_NEVER = {"x-should-retry": "false"}
_SOON = {"retry-after": str(RETRY_SECONDS)}

# The first row whose class fits counts, so a class stands above those it inherits from.
_TABLE: list[tuple[type[Exception], _Row]] = [
    (NotFound, _Row(status=404)),
    (Conflict, _Row(status=409, headers=_NEVER)),
    (TooLarge, _Row(status=413)),
    (WrongMethod, _Row(status=405)),
    (Unauthenticated, _Row(status=401, headers={"www-authenticate": "Bearer"})),
    (ForeignPage, _Row(status=403)),
    (EncodingUnsupported, _Row(status=415)),
    (HeadersTooLarge, _Row(status=431)),
    (ClientTooSlow, _Row(status=408)),
    (StateChanged, _Row(status=412)),
    (RangeUnsatisfiable, _Row(status=416)),
    (Refused, _Row(status=400)),
    # The upload was fenced while it ran; the client can send it again.
    (ClaimLost, _Row(status=409, headers={"x-should-retry": "true"})),
    (
        StorageFull,
        _Row(
            status=507,
            kind="server_error",
            headers=_NEVER,
            message="The server has no room left. Ask its operator for more space, then try again.",
        ),
    ),
    (
        StoreUnavailable,
        _Row(
            status=503,
            kind="server_error",
            headers=_SOON,
            message="The server can't reach its ledger right now. Please try again soon.",
        ),
    ),
    (
        UpstreamFault,
        _Row(
            status=503,
            kind="server_error",
            headers=_SOON,
            message="No model server answers right now. Please try again soon.",
        ),
    ),
]
_UNKNOWN = _Row(
    status=500,
    kind="server_error",
    message="The server had an error while processing your request. Give the x-request-id of this "
    "reply to its operator.",
)


def render(error: Exception) -> Rendered:
    """Return the status, headers and envelope for an error; what is not in the table is a 500."""
    row = next((row for kind, row in _TABLE if isinstance(error, kind)), _UNKNOWN)
    refused = error if isinstance(error, Refused) else None
    body = encode_error(
        message=row.message or str(error),
        kind=row.kind,
        param=None if refused is None else refused.param,
        code=None if refused is None else refused.code,
    )
    return Rendered(status=row.status, body=body, headers={**row.headers, **_extra(error)})


def _extra(error: Exception) -> dict[str, str]:
    if isinstance(error, WrongMethod):
        return {"allow": error.allowed}
    if isinstance(error, RangeUnsatisfiable):
        return {"content-range": f"bytes */{error.length}"}
    return {}
