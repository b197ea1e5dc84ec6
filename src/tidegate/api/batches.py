"""`/v1/batches`: create, list, look at, cancel."""

from tidegate.api import body, query
from tidegate.api.replies import Reply, json_reply, list_reply
from tidegate.api.routes import ONE, Request, Route
from tidegate.api.settings import Limits
from tidegate.desk.cancel import cancel_batch
from tidegate.desk.create import create_batch
from tidegate.desk.desk import Desk
from tidegate.desk.listing import list_batches
from tidegate.desk.read import read_batch
from tidegate.wire.batch_request import decode_batch_request
from tidegate.wire.objects import encode_batch


class Batches:
    """Answers for batches."""

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self._desk = desk
        self._limits = limits

    def routes(self) -> list[Route]:
        """Return the paths that this room answers."""
        return [
            Route(steps=("batches",), handlers={"POST": self._create, "GET": self._list}),
            Route(steps=("batches", ONE), handlers={"GET": self._read}),
            Route(steps=("batches", ONE, "cancel"), handlers={"POST": self._cancel}),
        ]

    async def _create(self, request: Request) -> Reply:
        data = await body.read_all(
            request.receive,
            declared=request.headers.get("content-length"),
            bytes_max=self._limits.body_bytes_max,
            limits=self._limits,
        )
        batch = await create_batch(
            self._desk,
            request.tenant,
            decode_batch_request(data),
            idempotency_key=request.headers.get("idempotency-key"),
        )
        return json_reply(encode_batch(batch))

    async def _list(self, request: Request) -> Reply:
        page = await list_batches(
            self._desk,
            request.tenant,
            after=query.read_text(request.query, "after"),
            limit=query.read_integer(request.query, "limit"),
        )
        return await list_reply(
            page.items, encode_batch, identify=lambda batch: batch.id, has_more=page.has_more
        )

    async def _read(self, request: Request) -> Reply:
        batch = await read_batch(self._desk, request.tenant, request.captured[0])
        return json_reply(encode_batch(batch))

    async def _cancel(self, request: Request) -> Reply:
        batch = await cancel_batch(self._desk, request.tenant, request.captured[0])
        return json_reply(encode_batch(batch))
