"""The public API, put together."""

from collections.abc import Callable

from starlette.types import ASGIApp

from tidegate.api.auth import Auth
from tidegate.api.batches import Batches
from tidegate.api.edge import Edge, Log
from tidegate.api.files import Files
from tidegate.api.guard import Guard
from tidegate.api.models import Models as ModelsApi
from tidegate.api.routes import Route, Router
from tidegate.api.settings import Limits, Settings
from tidegate.api.visitors import Visitors
from tidegate.blobs.base import BlobStore
from tidegate.desk.desk import Desk, Models
from tidegate.domain.errors import StorageBroken
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.signals.base import Signals
from tidegate.stores.base import Store


def build_app(  # noqa: PLR0913  # every port once, by keyword; there is nothing to group
    *,
    settings: Settings,
    store: Store,
    blobs: BlobStore,
    signals: Signals,
    models: Models,
    clock: Clock,
    ids: IdMaker,
    log: Log,
    on_storage_broken: Callable[[StorageBroken], None] | None = None,
) -> ASGIApp:
    """Return the ASGI application for the public port.

    It opens and closes nothing: the ports must be open while it serves. `on_storage_broken` is
    called when an upload finds that durability is lost, as the process must end then.
    """
    desk = Desk(
        settings=settings.desk,
        store=store,
        blobs=blobs,
        signals=signals,
        models=models,
        clock=clock,
        ids=ids,
    )
    limits = settings.limits
    welcome: ASGIApp = Auth(Router(routes_of(desk, limits)), keys=settings.keys)
    if not settings.keys:
        welcome = Visitors(welcome, host=settings.host, any_host=settings.any_host)
    inner = Guard(welcome, limits=limits)
    return Edge(inner, ids=ids, log=log, on_storage_broken=on_storage_broken)


def routes_of(desk: Desk, limits: Limits) -> list[Route]:
    """Return every path that is served; `tidegate.api.openapi` describes each."""
    return [
        *Files(desk, limits).routes(),
        *Batches(desk, limits).routes(),
        *ModelsApi(desk).routes(),
    ]
