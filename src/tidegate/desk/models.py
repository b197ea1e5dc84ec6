"""Which models can be asked for."""

from collections.abc import Sequence

from tidegate.desk.desk import Desk
from tidegate.desk.refusals import echo
from tidegate.domain.errors import NotFound


async def list_models(desk: Desk) -> Sequence[str]:
    """Return the names of the models that are served now.

    Raises:
        UpstreamFault: no model server could say.
    """
    return await desk.models.list_models()


async def read_model(desk: Desk, name: str) -> str:
    """Return the name of a model that is served now.

    Raises:
        NotFound: it is not.
        UpstreamFault: no model server could say.
    """
    if name not in await desk.models.list_models():
        raise NotFound(
            f"The model '{echo(name)}' does not exist.", param="model", code="model_not_found"
        )
    return name
