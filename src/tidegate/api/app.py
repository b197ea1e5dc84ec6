"""The public API, put together."""

from collections.abc import Callable

from starlette.types import ASGIApp

from tidegate.access.anonymous import Anonymous
from tidegate.access.static_keys import StaticKeys
from tidegate.api.batches import BatchesApi
from tidegate.api.files import FilesApi
from tidegate.api.middleware.auth import Authentication
from tidegate.api.middleware.errors import ErrorLog, ErrorResponses
from tidegate.api.middleware.header_limits import HeaderLimits
from tidegate.api.middleware.origin_check import OriginCheck
from tidegate.api.models import ModelsApi
from tidegate.api.routing import Route, Router
from tidegate.api.settings import Limits, Settings
from tidegate.application.context import Application
from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import StorageBroken
from tidegate.endpoints.catalogue import ModelLister
from tidegate.pubsub.base import PubSub
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.stores.base import Store


def build_app(  # noqa: PLR0913  # every port once, by keyword; there is nothing to group
    *,
    settings: Settings,
    store: Store,
    blobs: BlobStore,
    pubsub: PubSub,
    models: ModelLister,
    clock: Clock,
    ids: IdMaker,
    log: ErrorLog,
    on_storage_broken: Callable[[StorageBroken], None] | None = None,
) -> ASGIApp:
    """Return the ASGI application for the public port.

    It opens and closes nothing: the ports must be open while it serves. `on_storage_broken` is
    called when an upload finds that durability is lost, as the process must end then.
    """
    app = Application(
        settings=settings.batch_api,
        store=store,
        blobs=blobs,
        pubsub=pubsub,
        models=models,
        clock=clock,
        ids=ids,
    )
    limits = settings.limits
    routes = Router(routes_of(app, limits))
    inner: ASGIApp
    if settings.keys:
        inner = Authentication(routes, authenticator=StaticKeys(settings.keys))
    else:
        inner = Authentication(routes, authenticator=Anonymous())
        inner = OriginCheck(inner, host=settings.host, any_host=settings.any_host)
    inner = HeaderLimits(inner, limits=limits)
    return ErrorResponses(inner, ids=ids, log=log, on_storage_broken=on_storage_broken)


def routes_of(app: Application, limits: Limits) -> list[Route]:
    """Return every path that is served; `tidegate.api.openapi` describes each."""
    return [
        *FilesApi(app, limits).routes(),
        *BatchesApi(app, limits).routes(),
        *ModelsApi(app).routes(),
    ]
