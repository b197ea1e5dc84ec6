"""Create, read, list and cancel batches."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import msgspec
import orjson

from tidegate.client.objects import path_segment
from tidegate.client.pages import list_items
from tidegate.client.server import ApiClient


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What to create a batch from."""

    input_file_id: str
    endpoint: str
    window: str
    metadata: Mapping[str, str]


async def create_batch(server: ApiClient, wanted: NewBatch) -> bytes:
    """Create a batch; return its object. Raises as `ApiClient.request` does, as do all of these."""
    members: dict[str, object] = {
        "input_file_id": wanted.input_file_id,
        "endpoint": wanted.endpoint,
        "completion_window": wanted.window,
    }
    if wanted.metadata:
        members["metadata"] = dict(wanted.metadata)
    return await server.request("POST", "/batches", body=orjson.dumps(members))


async def get_batch(server: ApiClient, batch_id: str) -> bytes:
    """Return a batch object."""
    return await server.request("GET", f"/batches/{path_segment(batch_id)}")


async def cancel_batch(server: ApiClient, batch_id: str) -> bytes:
    """Cancel a batch; return its object."""
    return await server.request("POST", f"/batches/{path_segment(batch_id)}/cancel")


def list_batches(server: ApiClient, *, limit: int | None = None) -> AsyncIterator[msgspec.Raw]:
    """Yield batch objects, newest first."""
    return list_items(server, "/batches", limit=limit)
