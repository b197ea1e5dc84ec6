"""`tidegate processor`: works on batches, beside `tidegate serve` on the same data directory."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.exit_codes import run_until_stopped
from tidegate.cli.settings_flags import Assignments, ConfigFile, DataDir, Upstream, flags_of
from tidegate.config import Settings, check_processing, load, settings_from_json
from tidegate.domain.errors import SettingsInvalid
from tidegate.supervisor.control_pipe import read_first_line
from tidegate.telemetry.logs import configure, name_process
from tidegate.wiring.processor import Processing, run_processor

STDIN = 0


def processor(
    *,
    config: ConfigFile = None,
    observability_port: Annotated[
        int, typer.Option(help="The port of health and metrics; 0 takes any free one.")
    ] = 0,
    upstream: Upstream = None,
    data_dir: DataDir = None,
    supervised: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Used by `serve` for its children: settings and orders come by standard input.",
        ),
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Work on batches beside `tidegate serve`; SIGTERM stops it, a second one immediately."""
    flags = flags_of(assignments, upstream__url=upstream, data_dir=data_dir)
    if supervised is not None:
        settings = _handed(config, flags)
        name_process(supervised)
    else:
        settings = load(file=config, flags=flags).settings
    check_processing(settings)
    configure(settings.logs.format, level=settings.logs.level)
    run_until_stopped(
        run_processor(
            settings,
            observability_port=observability_port,
            on_ready=_announce,
            control_pipe=None if supervised is None else STDIN,
        )
    )


def _handed(config: Path | None, flags: dict[str, object]) -> Settings:
    if config is not None or flags:
        raise SettingsInvalid(
            "--supervised reads every setting from standard input, so no other flag may be given."
        )
    return settings_from_json(read_first_line(STDIN))


def _announce(processing: Processing) -> None:
    """Print the addresses, once it works."""
    typer.echo(
        f"tidegate processor is ready: data in {processing.data_dir}, upstream "
        f"{', '.join(processing.upstreams)}, health and metrics {processing.observability_url}"
    )
    # Standard output usually is a pipe, whose reader waits for this line.
    sys.stdout.flush()
