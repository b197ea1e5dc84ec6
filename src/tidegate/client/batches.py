"""What a user does with batches."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import msgspec
import orjson

from tidegate.client.objects import step
from tidegate.client.pages import walk
from tidegate.client.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a batch should be."""

    input_file_id: str
    endpoint: str
    window: str
    metadata: Mapping[str, str]


async def create_batch(server: Server, order: Order) -> bytes:
    """Create a batch; return its object. Raises as `Server.ask` does, as do all of these."""
    members: dict[str, object] = {
        "input_file_id": order.input_file_id,
        "endpoint": order.endpoint,
        "completion_window": order.window,
    }
    if order.metadata:
        members["metadata"] = dict(order.metadata)
    return await server.ask("POST", "/batches", body=orjson.dumps(members))


async def get_batch(server: Server, batch_id: str) -> bytes:
    """Return a batch object."""
    return await server.ask("GET", f"/batches/{step(batch_id)}")


async def cancel_batch(server: Server, batch_id: str) -> bytes:
    """Cancel a batch; return its object."""
    return await server.ask("POST", f"/batches/{step(batch_id)}/cancel")


def list_batches(server: Server, *, limit: int | None = None) -> AsyncIterator[msgspec.Raw]:
    """Yield batch objects, newest first."""
    return walk(server, "/batches", limit=limit)
