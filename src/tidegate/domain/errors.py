"""Every error of Tidegate, in one tree.

TidegateError
├── Refused              the caller asked for something that may not be (carries param and code)
│   ├── NotFound         no such object for this tenant
│   ├── Conflict         the object is in a state that does not allow it
│   └── TooLarge         a named bound would be passed
├── ClaimLost            a higher epoch exists: the holder may write no more
├── BlobMissing          a named blob does not exist, or is too short
│   └── BlobUnreadable   it is there, but its bytes can't be read now
├── StorageFull          the disk or bucket takes no more bytes; freed space fixes it
├── StorageBroken        durability can't be promised any more: the process must end
├── StoreUnavailable     the ledger did not answer; the outcome of the call is unknown
├── UpstreamFault        a model server gave no usable reply
│   ├── ConnectFailed    no connection: not one byte of the request was sent
│   ├── TimedOut         a time limit passed (connect, first byte, idle or total)
│   ├── ReplyBroken      the connection broke or the reply was not HTTP
│   └── ReplyTooLarge    the reply passed a named bound
├── SandboxDied          the sandbox that carried a single line died of it
├── SandboxNotStarted    no sandbox could be started: the line was not sent
└── SettingsInvalid      a setting is wrong; the message says which and how to fix it

Errors are facts and read as sentences. The HTTP status of each is decided in
`tidegate.api.errors` alone.
"""


class TidegateError(Exception):
    """Something that Tidegate names went wrong."""


class Refused(TidegateError):
    """The request is not acceptable as it stands.

    Attributes:
        param: the offending field as a dotted path, or None.
        code: OpenAI's machine-readable code, or None.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class NotFound(Refused):
    """No such object exists for this tenant."""


class Conflict(Refused):
    """The object's state does not allow the request."""


class TooLarge(Refused):
    """A named bound would be passed."""


class ClaimLost(TidegateError):
    """A higher epoch exists (or the unit has ended): the holder's right to write is over."""


class BlobMissing(TidegateError):
    """The blob does not exist, or ends before the slice that was asked for."""


class BlobUnreadable(BlobMissing):
    """The blob may be there, but reading it failed.

    The cause may be temporary (an I/O error, a missing mount, permissions), so this error does not
    mean that the bytes are lost.
    """


class StorageFull(TidegateError):
    """The storage takes no more bytes; freeing space fixes it."""


class StorageBroken(TidegateError):
    """A flush to stable storage failed: written data may be gone, so the process must end."""


class StoreUnavailable(TidegateError):
    """The ledger gave no answer: the call may or may not have happened."""


class SandboxDied(TidegateError):
    """The child process that carried one line alone died before it gave an answer."""


class SandboxNotStarted(TidegateError):
    """No child process could be started or made ready: not one byte of a line was sent."""


class SettingsInvalid(TidegateError, ValueError):  # A ValueError, as pydantic expects of checks.
    """A setting is wrong; the message names it and says how to fix it."""


class UpstreamFault(TidegateError):
    """A model server gave no usable reply."""


class ConnectFailed(UpstreamFault):
    """No connection could be made: not one byte of the request was sent."""


class TimedOut(UpstreamFault):
    """A time limit passed while the request was under way.

    Attributes:
        phase: which one: "connect", "first_byte", "idle" or "total".
    """

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase


class ReplyBroken(UpstreamFault):
    """The connection ended early, or what came is not a well-formed HTTP reply."""


class ReplyTooLarge(UpstreamFault):
    """The reply passed a bound on its header, body or framing."""
