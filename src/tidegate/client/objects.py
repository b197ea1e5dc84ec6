"""OpenAI's objects as a client reads them; missing and unknown members are accepted."""

from typing import TypeVar
from urllib.parse import quote

import msgspec

from tidegate.client.errors import UnexpectedResponse
from tidegate.domain.errors import SettingsInvalid

ID_CHARACTERS_MAX = 256
TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """A file. None is what a server left out."""

    id: str
    bytes: int | None = None
    created_at: float | None = None
    expires_at: float | None = None
    filename: str | None = None
    purpose: str | None = None


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a batch."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class BatchProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a batch could not be run."""

    code: str | None = None
    message: str | None = None
    line: int | None = None


class BatchProblems(msgspec.Struct, frozen=True, kw_only=True):
    """All reasons that a server lists."""

    data: list[BatchProblem] = []


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """Members that only Tidegate adds."""

    waiting_for: str | None = None


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. None is what a server left out."""

    id: str
    status: str
    endpoint: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    request_counts: BatchCounts | None = None
    usage: BatchUsage | None = None
    errors: BatchProblems | None = None
    tidegate: Extras | None = None

    @property
    def is_terminal(self) -> bool:
        """Return whether its status is final."""
        return self.status in TERMINAL

    @property
    def counts(self) -> BatchCounts:
        """Its lines; zeros if the server left them out."""
        return self.request_counts or BatchCounts()

    @property
    def waiting_for(self) -> str | None:
        """Why it makes no progress, if the server gives a reason."""
        return None if self.tidegate is None else self.tidegate.waiting_for


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a delete."""

    id: str
    deleted: bool = False


class PageObject(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list, with its items as they came."""

    data: list[msgspec.Raw]
    has_more: bool = False


T = TypeVar("T")


def decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode an object.

    Raises:
        UnexpectedResponse: it is not such an object.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        name = kind.__name__.removesuffix("Object").lower()
        raise UnexpectedResponse(
            f"This is not an OpenAI-compatible server: its answer is not a {name} ({exc})."
        ) from exc


def compact_json(body: bytes | msgspec.Raw) -> str:
    """Return JSON on one line; numbers, order and escapes stay.

    Raises:
        UnexpectedResponse: it is not JSON.
    """
    try:
        text: str = msgspec.json.format(bytes(body), indent=-1).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise UnexpectedResponse(f"The answer of the server is not JSON ({exc}).") from exc
    return text


def path_segment(identity: str) -> str:
    """Return an id as one quoted segment of a path.

    Raises:
        SettingsInvalid: it can't be an id.
    """
    fits = 0 < len(identity) <= ID_CHARACTERS_MAX and identity.isprintable()
    if not fits or identity in {".", ".."}:
        raise SettingsInvalid(
            f"An id has 1 to {ID_CHARACTERS_MAX} printable characters: copy it from a list."
        )
    return quote(identity, safe="")
