"""A page of a list, as OpenAI's clients walk it: the next page comes after `last_id`."""

from collections.abc import Sequence

import orjson


def list_body(
    items: Sequence[bytes], *, first_id: str | None, last_id: str | None, has_more: bool
) -> bytes:
    """Return the list object around items that are encoded already, in their order."""
    assert (first_id is None) == (last_id is None) == (not items), "ids name the ends of the page"
    tail = orjson.dumps({"first_id": first_id, "last_id": last_id, "has_more": has_more})
    return b'{"object":"list","data":[' + b",".join(items) + b"]," + tail[1:]
