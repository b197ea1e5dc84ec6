"""`tidegate simulate`: a model server without a model, for trials and tests."""

from typing import Annotated

import typer
import uvloop

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.clock import SystemClock
from tidegate.runtime.services import Stops, run_together
from tidegate.runtime.web import Timeouts, WebServer, address_of, bind
from tidegate.simulator.app import build_simulator
from tidegate.simulator.settings import SimulatorSettings


def simulate(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 takes any free one.")] = 8001,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that it serves; may be given several times.")
    ] = None,
    latency: Annotated[float, typer.Option(help="Seconds before the first token.")] = 0.0,
    token_latency: Annotated[float, typer.Option(help="Seconds for each token.")] = 0.0,
    in_flight_max: Annotated[
        int | None, typer.Option(help="Requests at once; more are refused with 429.")
    ] = None,
) -> None:
    """Serve an OpenAI-compatible API on 127.0.0.1 that makes its answers up."""
    if not all(name.strip() for name in model or ()):
        raise SettingsInvalid("--model is empty: give the name of a model, or leave the flag away.")
    settings = SimulatorSettings(
        models=tuple(model or ["sim"]),
        latency_seconds=latency,
        token_seconds=token_latency,
        in_flight_max=in_flight_max,
    )
    uvloop.run(_serve(settings, port))


async def _serve(settings: SimulatorSettings, port: int) -> None:
    stops = Stops()
    with bind("127.0.0.1", port, "--port") as listener, stops.heard_from_signals():
        typer.echo(
            f"The simulator serves {', '.join(settings.models)} at {address_of(listener)}/v1"
        )
        server = WebServer(build_simulator(settings, SystemClock()), listener, Timeouts())
        await run_together({"simulator": server}, {}, stops)
