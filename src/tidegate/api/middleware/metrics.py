"""Counts what the API answers, by method, route and status."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.telemetry.http_metrics import HttpMetrics

STEPS_MAX = 5
OTHER = "other"
CRASHED = 500
_WORDS = frozenset({"v1", "files", "batches", "models", "content", "cancel"})


class RequestMetrics:
    """Passes requests on, and notes each answer with the time until its last byte.

    The route is the path with every step that is no word of the API replaced by `{id}`, so that its
    values stay few.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        begin = loop.time()
        status = CRASHED

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = route_of(scope["path"])
            self._metrics.on_request(scope["method"], route, status, loop.time() - begin)


def route_of(path: str) -> str:
    """Return the template of a path, one of a few."""
    steps = [step for step in path.split("/") if step]
    if len(steps) > STEPS_MAX or not _WORDS.intersection(steps[:2]):
        return OTHER
    return "/" + "/".join(step if step in _WORDS else "{id}" for step in steps)
