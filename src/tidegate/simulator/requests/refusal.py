"""A request that is turned away, in the words and the envelope of vLLM."""

from http import HTTPStatus

import orjson


class Refused(Exception):
    """The request gets an error for an answer.

    Attributes:
        status: the HTTP status.
        body: the JSON of the reply.
        headers: further header rows, each with its line end.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
        headers: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = orjson.dumps(
            {"error": {"message": message, "type": kind, "param": param, "code": status}}
        )


def by_status(status: HTTPStatus, message: str | None = None, headers: bytes = b"") -> Refused:
    """Return the refusal whose type is the phrase of its status, as vLLM's web framework has it."""
    return Refused(
        message or status.phrase, status=status.value, kind=status.phrase, headers=headers
    )


def nothing_here(status: HTTPStatus, headers: bytes = b"") -> Refused:
    """Return the refusal of a path or a method, which vLLM's web framework gives by itself."""
    refusal = by_status(status, headers=headers)
    refusal.body = orjson.dumps({"detail": status.phrase})
    return refusal


def unknown_model(name: str, known: list[str]) -> Refused:
    """Return the refusal of a model that is not served, with those that are."""
    return Refused(
        f"The model `{name}` does not exist. Valid aliases: {', '.join(known)}.",
        status=404,
        kind="NotFoundError",
        param="model",
    )
