"""The error envelope that OpenAI's clients read: always all four keys."""

import orjson


def error_body(*, message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """Return `{"error": {...}}`. `kind` is what the envelope calls `type`."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return orjson.dumps({"error": error})
