"""Which models can be asked for."""

from collections.abc import Sequence

from tidegate.access.principal import Principal
from tidegate.application.context import Application
from tidegate.application.rules import echo
from tidegate.domain.errors import NotFound


async def list_models(app: Application, principal: Principal) -> Sequence[str]:
    """Return the names of the models that are served now; every principal may ask for each.

    Raises:
        UpstreamFault: no model server could say.
    """
    del principal
    return await app.models.list_models()


async def read_model(app: Application, principal: Principal, name: str) -> str:
    """Return the name of a model that is served now.

    Raises:
        NotFound: it is not.
        UpstreamFault: no model server could say.
    """
    if name not in await list_models(app, principal):
        raise NotFound(
            f"The model '{echo(name)}' does not exist.", param="model", code="model_not_found"
        )
    return name
