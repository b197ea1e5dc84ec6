"""`tidegate serve`: the API, with one processor in it or with several beside it."""

from typing import Annotated

import typer
from rich.console import Console

from tidegate.cli.exit_codes import run_until_stopped
from tidegate.cli.settings_flags import Assignments, ConfigFile, DataDir, Upstream, flags_of
from tidegate.config import check_serving, load
from tidegate.telemetry.logs import configure
from tidegate.wiring.serve import Running, run_service

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
    upstream: Upstream = None,
    data_dir: DataDir = None,
    processors: Annotated[
        int | None,
        typer.Option(
            help="Processors: 1 in this process, 0 none, more as child processes. [default: 1]"
        ),
    ] = None,
    allow_open: Annotated[
        bool,
        typer.Option("--allow-open", help="Permit addresses other than loopback without keys."),
    ] = False,
    assignments: Assignments = None,
) -> None:
    """Run the API and its processors; SIGTERM stops them, a second one immediately."""
    flags = flags_of(
        assignments,
        server__host=host,
        server__port=port,
        server__observability_port=observability_port,
        server__allow_open=allow_open,
        upstream__url=upstream,
        data_dir=data_dir,
        processors=processors,
    )
    settings = load(file=config, flags=flags).settings
    check_serving(settings)
    configure(settings.logs.format, level=settings.logs.level)
    run_until_stopped(run_service(settings, on_ready=_announce))


def _announce(running: Running) -> None:
    """Print the addresses, once requests are answered."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if running.is_open:
        who = "this machine" if running.on_loopback else "the network around this machine"
        errors.print(OPEN_WARNING.format(who=who), style="bold yellow", markup=False)
    typer.echo(
        f"tidegate is ready: {running.api_url}/v1, data in {running.data_dir}, "
        f"upstream {', '.join(running.upstreams)}, health and metrics {running.observability_url}"
        f"{_where_processed(running.processors)}"
    )


def _where_processed(processors: int) -> str:
    """Return which processors work on batches, if it is not this process alone."""
    if processors == 0:
        return ", no processor: batches wait for `tidegate processor`"
    return f", {processors} processors" if processors > 1 else ""
