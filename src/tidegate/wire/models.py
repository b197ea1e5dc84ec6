"""The Model object, as OpenAI's clients read it."""

import orjson


def model_object(name: str, *, created_at: float) -> bytes:
    """Return a Model object. `created_at` is the Unix time from which the model was offered."""
    return orjson.dumps(
        {"id": name, "object": "model", "created": int(created_at), "owned_by": "tidegate"}
    )


def models_body(items: list[bytes]) -> bytes:
    """Return the list of models, which has no pages."""
    return b'{"object":"list","data":[' + b",".join(items) + b"]}"
