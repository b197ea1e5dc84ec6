"""`/v1/models`: what can be asked for."""

from tidegate.api.responses import Reply, json_reply
from tidegate.api.routing import REST, Request, Route
from tidegate.application.context import Application
from tidegate.application.models import list_models, read_model
from tidegate.wire.objects import encode_model, encode_models


class ModelsApi:
    """Answers for models. Their `created` is the time at which this API was built."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._created_at = app.clock.now()

    def routes(self) -> list[Route]:
        """Return the paths that this room answers; a model's name may hold slashes."""
        return [
            Route(steps=("models",), handlers={"GET": self._list}),
            Route(steps=("models", REST), handlers={"GET": self._read}),
        ]

    async def _list(self, request: Request) -> Reply:
        names = await list_models(self._app, request.caller)
        return json_reply(encode_models(names, created_at=self._created_at))

    async def _read(self, request: Request) -> Reply:
        name = await read_model(self._app, request.caller, request.captured[0])
        return json_reply(encode_model(name, created_at=self._created_at))
