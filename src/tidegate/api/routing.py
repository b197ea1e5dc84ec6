"""From a path and a method to the function that answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from tidegate.access.principal import Principal
from tidegate.api.errors import UnknownRoute, WrongMethod
from tidegate.api.responses import Reply, send_reply
from tidegate.application.rules import echo

ONE = "*"  # Stands for one step of a path.
REST = "**"  # Stands for all steps that follow, at least one.


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a handler sees of a request.

    Attributes:
        captured: the steps of the path at the stars of the pattern.
        principal: who asks; None on a port that does not authenticate.
    """

    method: str
    captured: Sequence[str]
    headers: Headers
    query: QueryParams
    principal: Principal | None
    receive: Receive

    @property
    def caller(self) -> Principal:
        """Return who asks, on a port that authenticates."""
        assert self.principal is not None, "this port asks for no credential"
        return self.principal


Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path, step by step, and who answers which method. GET answers HEAD too."""

    steps: tuple[str, ...]
    handlers: Mapping[str, Handler]


class Router:
    """Finds the handler, with or without the prefix `/v1` and a trailing slash."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            UnknownRoute: nothing is served at the path.
            WrongMethod: not with this method.
        """
        method, path = scope["method"], scope["path"]
        route, captured = self._find(method, path)
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise WrongMethod(
                f"Not allowed to {echo(method)} on {echo(path)} "
                "(HINT: Perhaps you meant to use a different HTTP method?)",
                allowed=_allowed(route),
            )
        request = Request(
            method=method,
            captured=captured,
            headers=Headers(scope=scope),
            query=QueryParams(scope["query_string"]),
            principal=scope.get("state", {}).get("principal"),
            receive=receive,
        )
        await send_reply(await handler(request), scope, receive, send)

    def _find(self, method: str, path: str) -> tuple[Route, list[str]]:
        steps = [step for step in path.split("/") if step]
        if steps[:1] == ["v1"]:
            steps = steps[1:]
        for route in self._routes:
            captured = _match(route.steps, steps)
            if captured is not None:
                return route, captured
        raise UnknownRoute(f"Invalid URL ({echo(method)} {echo(path)})")


def _match(pattern: Sequence[str], steps: Sequence[str]) -> list[str] | None:
    if pattern[-1] == REST and len(steps) >= len(pattern):
        head = len(pattern) - 1
        steps = [*steps[:head], "/".join(steps[head:])]
    if len(pattern) != len(steps):
        return None
    captured = []
    for wanted, step in zip(pattern, steps, strict=True):
        if wanted in {ONE, REST}:
            captured.append(step)
        elif wanted != step:
            return None
    return captured


def _allowed(route: Route) -> str:
    methods = set(route.handlers) | ({"HEAD"} if "GET" in route.handlers else set())
    return ", ".join(sorted(methods))
