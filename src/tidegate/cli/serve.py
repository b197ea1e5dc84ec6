"""`tidegate serve`: everything in one process."""

import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from tidegate.cli.options import Assignments, ConfigFile, flags_of
from tidegate.config import check_serving, load
from tidegate.domain.errors import TidegateError
from tidegate.telemetry.logs import configure
from tidegate.wiring import Running, run_service

DIED = 1
FORCED = 3

OPEN_WARNING = (
    "WARNING: no keys are set. Every user of {who} can read all files, run batches and cancel "
    "them. Set server.keys_file to change that."
)


def serve(  # noqa: PLR0913 -- each parameter is one flag of the command line
    *,
    config: ConfigFile = None,
    host: Annotated[
        str | None, typer.Option(help="The address of the API. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port of the API. [default: 8000]")] = None,
    observability_port: Annotated[
        int | None, typer.Option(help="The port of health and metrics. [default: 8081]")
    ] = None,
    gateway: Annotated[
        str | None, typer.Option(help="The base URL of the model server for every model.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept. [default: ./tidegate-data]")
    ] = None,
    allow_open: Annotated[
        bool,
        typer.Option("--allow-open", help="Permit other addresses than loopback without keys."),
    ] = False,
    assignments: Assignments = None,
) -> None:
    """Run the API and the processor in one process; SIGTERM stops it, a second one at once."""
    flags = flags_of(
        assignments,
        server__host=host,
        server__port=port,
        server__observability_port=observability_port,
        server__allow_open=allow_open,
        gateway__url=gateway,
        data_dir=data_dir,
    )
    settings = load(file=config, flags=flags).settings
    check_serving(settings)
    configure(settings.logs.format, level=settings.logs.level)
    try:
        forced = uvloop.run(run_service(settings, on_ready=_announce))
    except BaseExceptionGroup as group:
        message = explanation(group)
        if message is None:
            raise
        typer.echo(f"tidegate: a service died, so the process ends: {message}", err=True)
        sys.exit(DIED)
    sys.exit(FORCED if forced else 0)


def _announce(running: Running) -> None:
    """Say where everything is, once requests are answered."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if running.is_open:
        who = "this machine" if running.on_loopback else "the network around this machine"
        errors.print(OPEN_WARNING.format(who=who), style="bold yellow", markup=False)
    typer.echo(
        f"tidegate is ready: {running.api_url}/v1, data in {running.data_dir}, "
        f"upstream {', '.join(running.upstreams)}, health and metrics {running.observability_url}"
    )


def explanation(group: BaseExceptionGroup[BaseException]) -> str | None:
    """Return in one line what ended the process; None if a bug of ours had a part in it."""
    known, other = group.split(TidegateError)
    if known is None or other is not None:
        return None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
