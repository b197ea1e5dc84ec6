"""`tidegate batches`: the batches of any OpenAI-compatible server."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from tidegate.cli.files import progress
from tidegate.cli.reaching import ApiKeyFile, AsJson, BaseUrl, CaFile, TimeoutSeconds, reach
from tidegate.cli.shown import (
    BATCH_HEADS,
    batch_lines,
    batch_row,
    print_rows,
    problem_lines,
)
from tidegate.cli.watching import showing
from tidegate.client.access import TIMEOUT_SECONDS_DEFAULT
from tidegate.client.batches import (
    Order,
    cancel_batch,
    create_batch,
    get_batch,
    list_batches,
)
from tidegate.client.files import Upload, upload
from tidegate.client.objects import BatchObject, FileObject, on_one_line, read, step
from tidegate.client.server import Server
from tidegate.client.watch import LOOK_SECONDS_MIN, Watch
from tidegate.client.wording import plain
from tidegate.domain.errors import SettingsInvalid

INTERRUPTED = 3
NOT_COMPLETED = 4
LIST_DEFAULT = 20
EVERY_SECONDS_DEFAULT = 1.0

batches_app = typer.Typer(
    help="The batches of any OpenAI-compatible server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID", help="The id of the batch.")]
Every = Annotated[
    float,
    typer.Option(min=LOOK_SECONDS_MIN, metavar="SECONDS", help="How long between two looks."),
]


@batches_app.command()
def create(  # noqa: PLR0913 -- each parameter is one flag of the command line
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_FILE_ID",
            help="The input: a file on this machine, which is uploaded first, or the id of one "
            "that is uploaded.",
        ),
    ],
    *,
    endpoint: Annotated[
        str, typer.Option(metavar="PATH", help="The endpoint that the lines name.")
    ] = "/v1/chat/completions",
    window: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it may take: 24h, 90m, 7d.")
    ] = "24h",
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A note on it; may be given several times."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it until it has ended.")] = False,
    every: Every = EVERY_SECONDS_DEFAULT,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Create a batch and print its id.

    With --json its object is printed. With --wait it is watched, with status 4 if it does not
    complete.
    """
    notes = _notes(metadata)
    local = _local_file(source)
    started: list[str] = []

    async def work(server: Server) -> Sequence[BatchObject]:
        file_id = source if local is None else await _uploaded(server, local)
        order = Order(input_file_id=file_id, endpoint=endpoint, window=window, metadata=notes)
        body = await create_batch(server, order)
        batch = read(body, BatchObject)
        started.append(batch.id)
        if not wait:
            typer.echo(on_one_line(body) if as_json else plain(batch.id))
            return []
        return await _watched(server, [batch.id], every, as_json=as_json)

    try:
        ended = reach(
            work, base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout=timeout
        )
    except KeyboardInterrupt:
        _leave(started)
    _judge(ended, as_json=as_json)


@batches_app.command("list")
def list_(
    *,
    limit: Annotated[
        int, typer.Option(min=0, help="How many at most, newest first; 0 for all.")
    ] = LIST_DEFAULT,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """List batches, newest first.

    With --json one object on each line.
    """

    async def work(server: Server) -> None:
        rows = []
        async for item in list_batches(server, limit=limit or None):
            if as_json:
                typer.echo(on_one_line(item))
            else:
                rows.append(batch_row(read(item, BatchObject)))
        if not as_json:
            print_rows(BATCH_HEADS, rows)

    reach(work, base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout=timeout)


@batches_app.command()
def get(
    batch_id: BatchId,
    *,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Print how a batch stands."""
    step(batch_id)
    body = reach(
        partial(get_batch, batch_id=batch_id),
        base_url=base_url,
        api_key_file=api_key_file,
        ca_file=ca_file,
        timeout=timeout,
    )
    _print_batch(body, as_json=as_json)


@batches_app.command()
def watch(  # noqa: PLR0913 -- each parameter is one flag of the command line
    batch_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="BATCH_ID", help="Which; without any, every batch that is running."),
    ] = None,
    *,
    every: Every = EVERY_SECONDS_DEFAULT,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Show batches live until all have ended.

    Ctrl-C leaves them running. Status 4 if one did not complete.
    """
    wanted = batch_ids or []
    for batch_id in wanted:
        step(batch_id)

    async def work(server: Server) -> Sequence[BatchObject]:
        return await _watched(server, wanted, every, as_json=as_json)

    try:
        ended = reach(
            work, base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout=timeout
        )
    except KeyboardInterrupt:
        _leave(wanted or ["the batches"])
    if not ended and not as_json:
        typer.echo("No batch is running; `tidegate batches list` shows those that have ended.")
    _judge(ended, as_json=as_json)


@batches_app.command()
def cancel(
    batch_id: BatchId,
    *,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Cancel a batch.

    What is in flight may still land; the rest ends as batch_cancelled.
    """
    step(batch_id)
    body = reach(
        partial(cancel_batch, batch_id=batch_id),
        base_url=base_url,
        api_key_file=api_key_file,
        ca_file=ca_file,
        timeout=timeout,
    )
    _print_batch(body, as_json=as_json)


def _local_file(source: str) -> Path | None:
    """Return the input if it lies on this machine; None if it is the id of an uploaded one."""
    path = Path(source)
    if path.is_file():
        return path
    if "/" in source or path.suffix:
        raise SettingsInvalid(
            f"There is no file '{plain(source)}' on this machine: give its path, or the id of an "
            "uploaded file."
        )
    step(source)
    return None


async def _uploaded(server: Server, path: Path) -> str:
    with progress(f"Uploading {plain(path.name, 40)}") as tell:
        body = await upload(server, Upload(path=path, purpose="batch"), tell)
    return read(body, FileObject).id


async def _watched(
    server: Server, batch_ids: Sequence[str], every: float, *, as_json: bool
) -> Sequence[BatchObject]:
    console = Console(highlight=False)
    with showing(as_json=as_json, console=console) as show:
        return await Watch(server, batch_ids, every_seconds=every).until_all_end(show)


def _judge(ended: Sequence[BatchObject], *, as_json: bool) -> None:
    """Say what to do next, and leave with status 4 if a batch did not complete."""
    if not as_json:
        for batch in ended:
            for line in _next_steps(batch):
                typer.echo(line, err=True)
    if any(batch.status != "completed" for batch in ended):
        sys.exit(NOT_COMPLETED)


def _next_steps(batch: BatchObject) -> list[str]:
    name = plain(batch.id)
    lines = [] if batch.status == "completed" else [f"{name} ended as {plain(batch.status)}."]
    lines += problem_lines(batch)
    if batch.output_file_id:
        lines.append(f"Results: tidegate files download {plain(batch.output_file_id)}")
    if batch.error_file_id and batch.counts.failed:
        lines.append(
            f"{batch.counts.failed} failed lines: tidegate files download "
            f"{plain(batch.error_file_id)}"
        )
    return lines


def _leave(running: Sequence[str]) -> NoReturn:
    if running:
        names = ", ".join(plain(name) for name in running)
        typer.echo(
            f"tidegate: no longer watching; {names} goes on. `tidegate batches watch` looks again, "
            "`tidegate batches cancel` ends a batch.",
            err=True,
        )
    else:
        typer.echo("tidegate: interrupted before the batch was created.", err=True)
    sys.exit(INTERRUPTED)


def _notes(pairs: Sequence[str] | None) -> dict[str, str]:
    notes: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (equals and key):
            raise SettingsInvalid(f"--metadata {plain(pair)} must have the form KEY=VALUE.")
        if key in notes:
            raise SettingsInvalid(f"--metadata gives '{plain(key)}' twice.")
        notes[key] = value
    return notes


def _print_batch(body: bytes, *, as_json: bool) -> None:
    if as_json:
        typer.echo(on_one_line(body))
        return
    for line in batch_lines(read(body, BatchObject)):
        typer.echo(line)
