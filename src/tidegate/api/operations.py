"""What operators and probes ask, on a port of its own: is it alive, is it ready, what does it do.

This port needs no key and must not be reachable by users.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp

from tidegate.api.middleware.errors import ErrorLog, ErrorResponses
from tidegate.api.middleware.header_limits import HeaderLimits
from tidegate.api.responses import Reply, json_reply
from tidegate.api.routing import Request, Route, Router
from tidegate.api.settings import Limits
from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import SettingsInvalid, TidegateError
from tidegate.runtime.health import Condition
from tidegate.runtime.ids import IdMaker
from tidegate.stores.base import Store

_UNREADY = 503
_FINE = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long the ledger and the blobs may take to prove that they work."""

    ready_seconds_max: float = 5.0

    def __post_init__(self) -> None:
        if self.ready_seconds_max <= 0:
            raise SettingsInvalid("observability.ready_seconds_max must be above 0.")


def build_observability(  # noqa: PLR0913  # every port once, by keyword; there is nothing to group
    *,
    settings: Settings,
    store: Store,
    blobs: BlobStore,
    registry: CollectorRegistry,
    ids: IdMaker,
    log: ErrorLog,
    is_stopping: Callable[[], bool] = lambda: False,
    conditions: Mapping[str, Callable[[], Condition]] | None = None,
) -> ASGIApp:
    """Return the ASGI application for the operators' port.

    `/ready` fails as soon as `is_stopping` says so, so that no new requests are sent here,
    and while one of the `conditions` is not ok; the response lists each by its name.
    """
    probes = _Probes(settings, store, blobs, registry, is_stopping, conditions or {})
    routes = [
        Route(steps=("health",), handlers={"GET": probes.health}),
        Route(steps=("ready",), handlers={"GET": probes.ready}),
        Route(steps=("metrics",), handlers={"GET": probes.metrics}),
    ]
    return ErrorResponses(HeaderLimits(Router(routes), limits=Limits()), ids=ids, log=log)


@dataclass(frozen=True, slots=True)
class _Probes:
    settings: Settings
    store: Store
    blobs: BlobStore
    registry: CollectorRegistry
    is_stopping: Callable[[], bool]
    conditions: Mapping[str, Callable[[], Condition]]

    async def health(self, request: Request) -> Reply:
        """Say that the process runs and its event loop turns."""
        del request
        return json_reply(orjson.dumps({"status": _FINE}))

    async def ready(self, request: Request) -> Reply:
        """Answer whether requests can be served, and if not, what fails."""
        del request
        async with asyncio.TaskGroup() as group:
            store = group.create_task(self._prove(self.store.check()), name="check the store")
            blobs = group.create_task(self._prove(self.blobs.check()), name="check the blobs")
        proofs = {"store": store.result(), "blobs": blobs.result()}
        found = {
            name: Condition(is_ok=said == _FINE, message=said) for name, said in proofs.items()
        }
        found |= {name: ask() for name, ask in self.conditions.items()}
        if self.is_stopping():
            found["process"] = Condition(is_ok=False, message="The process is stopping.")
        checks = {name: condition.message for name, condition in found.items()}
        failing = not all(condition.is_ok for condition in found.values())
        status = "failing" if failing else _FINE
        return json_reply(
            orjson.dumps({"status": status, "checks": checks}), status=_UNREADY if failing else 200
        )

    async def metrics(self, request: Request) -> Reply:
        """Return every metric, in the format that the scraper prefers."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Reply(body=encode(self.registry), headers={"content-type": content_type})

    async def _prove(self, check: Awaitable[None]) -> str:
        seconds = self.settings.ready_seconds_max
        try:
            async with asyncio.timeout(seconds):
                await check
        except TimeoutError:
            return f"No answer within {seconds:g} s."
        except TidegateError as exc:
            return str(exc) or type(exc).__name__
        return _FINE
