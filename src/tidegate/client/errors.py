"""What can go wrong between a user's terminal and a server.

TidegateError
├── ServerUnreachable    no answer came: nothing listens, TLS fails, or it takes too long
├── UnexpectedResponse        what answers does not speak OpenAI's API
├── ServerRefused        the server said no; its own words are in the message
├── TransferStopped      bytes stopped coming in the middle of a file
└── LocalFileUnusable       a file on this machine can't be read, written or replaced

Each message says what to do about it. Foreign text in them is free of control characters.
"""

from tidegate.domain.errors import TidegateError


class ServerUnreachable(TidegateError):
    """No answer came."""


class UnexpectedResponse(TidegateError):
    """What answers does not speak OpenAI's API."""


class ServerRefused(TidegateError):
    """The server said no.

    Attributes:
        status: the HTTP status of its answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class TransferStopped(TidegateError):
    """The bytes of a file stopped coming before its end."""


class LocalFileUnusable(TidegateError):
    """A file on this machine can't be read, written or replaced."""
