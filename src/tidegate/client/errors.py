"""The errors of the client.

TidegateError
├── ServerUnreachable    no answer came: nothing listens, TLS fails, or it takes too long
├── UnexpectedResponse   the answer is not one of OpenAI's API
├── ServerRefused        the server refused; its own message is included
├── TransferStopped      a transfer stopped in the middle of a file
└── LocalFileUnusable    a file on this machine can't be read, written or replaced

Each message says what to do. Foreign text in messages is free of control characters.
"""

from tidegate.domain.errors import TidegateError


class ServerUnreachable(TidegateError):
    """No answer came."""


class UnexpectedResponse(TidegateError):
    """The answer is not one of OpenAI's API."""


class ServerRefused(TidegateError):
    """The server refused the request.

    Attributes:
        status: the HTTP status of its answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class TransferStopped(TidegateError):
    """A transfer stopped before the end of the file."""


class LocalFileUnusable(TidegateError):
    """A file on this machine can't be read, written or replaced."""
