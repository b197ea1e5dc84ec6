"""`/v1/batches`: create, list, look at, cancel."""

from tidegate.api import body, query
from tidegate.api.responses import Reply, json_reply, list_reply
from tidegate.api.routing import ONE, Request, Route
from tidegate.api.settings import Limits
from tidegate.application.batches import cancel_batch, create_batch, list_batches, read_batch
from tidegate.application.context import Application
from tidegate.wire.batch_request import decode_batch_request
from tidegate.wire.objects import encode_batch


class BatchesApi:
    """Answers for batches."""

    def __init__(self, app: Application, limits: Limits) -> None:
        self._app = app
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
            self._app,
            request.caller,
            decode_batch_request(data),
            idempotency_key=request.headers.get("idempotency-key"),
        )
        return json_reply(encode_batch(batch))

    async def _list(self, request: Request) -> Reply:
        page = await list_batches(
            self._app,
            request.caller,
            after=query.read_text(request.query, "after"),
            limit=query.read_integer(request.query, "limit"),
        )
        return await list_reply(
            page.items, encode_batch, identify=lambda batch: batch.id, has_more=page.has_more
        )

    async def _read(self, request: Request) -> Reply:
        batch = await read_batch(self._app, request.caller, request.captured[0])
        return json_reply(encode_batch(batch))

    async def _cancel(self, request: Request) -> Reply:
        batch = await cancel_batch(self._app, request.caller, request.captured[0])
        return json_reply(encode_batch(batch))
