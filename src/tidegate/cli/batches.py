"""`tidegate batches`: the batches of any OpenAI-compatible server."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from tidegate.cli.connection import ServerConnection, with_connection
from tidegate.cli.exit_codes import ExitCode
from tidegate.cli.files import progress
from tidegate.cli.live_view import open_view
from tidegate.cli.tables import BATCH_HEADS, batch_lines, batch_row, print_list, problem_lines
from tidegate.client.batches import NewBatch, cancel_batch, create_batch, get_batch, list_batches
from tidegate.client.files import FileUpload, upload
from tidegate.client.objects import BatchObject, FileObject, compact_json, decode, path_segment
from tidegate.client.sanitize import sanitize
from tidegate.client.server import ApiClient
from tidegate.client.watch import POLL_SECONDS_MIN, Watch
from tidegate.domain.errors import SettingsInvalid

LIST_DEFAULT = 20
EVERY_SECONDS_DEFAULT = 1.0

batches_app = typer.Typer(
    help="The batches of any OpenAI-compatible server.", no_args_is_help=True, rich_markup_mode=None
)
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID", help="The id of the batch.")]
Every = Annotated[
    float,
    typer.Option(min=POLL_SECONDS_MIN, metavar="SECONDS", help="How long between two requests."),
]


@batches_app.command()
@with_connection
def create(  # noqa: PLR0913 -- each parameter but the first is one flag or argument
    connection: ServerConnection,
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_FILE_ID",
            help="The input: a file on this machine, which is uploaded first, or the id of an "
            "uploaded file.",
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
) -> None:
    """Create a batch and print its id.

    With --json its object is printed. With --wait it is watched until it has ended; the exit code
    is 4 if it did not complete.
    """
    notes = _notes(metadata)
    local = _local_file(source)
    started: list[str] = []

    async def work(server: ApiClient) -> Sequence[BatchObject]:
        file_id = source if local is None else await _uploaded(server, local)
        wanted = NewBatch(input_file_id=file_id, endpoint=endpoint, window=window, metadata=notes)
        body = await create_batch(server, wanted)
        batch = decode(body, BatchObject)
        started.append(batch.id)
        if not wait:
            typer.echo(compact_json(body) if connection.as_json else sanitize(batch.id))
            return []
        return await _watched(server, [batch.id], every, as_json=connection.as_json)

    try:
        ended = connection.run(work)
    except KeyboardInterrupt:
        _exit_interrupted(started)
    _report_and_exit(ended, as_json=connection.as_json)


@batches_app.command("list")
@with_connection
def list_(
    connection: ServerConnection,
    *,
    limit: Annotated[
        int, typer.Option(min=0, help="How many at most, newest first; 0 for all.")
    ] = LIST_DEFAULT,
) -> None:
    """List batches, newest first.

    With --json it prints one object on each line.
    """

    async def work(server: ApiClient) -> None:
        items = list_batches(server, limit=limit or None)
        await print_list(items, BATCH_HEADS, batch_row, as_json=connection.as_json)

    connection.run(work)


@batches_app.command()
@with_connection
def get(connection: ServerConnection, batch_id: BatchId) -> None:
    """Print the state of a batch."""
    path_segment(batch_id)
    body = connection.run(partial(get_batch, batch_id=batch_id))
    _print_batch(body, as_json=connection.as_json)


@batches_app.command()
@with_connection
def watch(
    connection: ServerConnection,
    batch_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BATCH_ID", help="Which batches; by default every batch that is running."
        ),
    ] = None,
    *,
    every: Every = EVERY_SECONDS_DEFAULT,
) -> None:
    """Show batches live until all have ended.

    Ctrl-C leaves them running. The exit code is 4 if one did not complete.
    """
    wanted = batch_ids or []
    for batch_id in wanted:
        path_segment(batch_id)

    async def work(server: ApiClient) -> Sequence[BatchObject]:
        return await _watched(server, wanted, every, as_json=connection.as_json)

    try:
        ended = connection.run(work)
    except KeyboardInterrupt:
        _exit_interrupted(wanted or ["the batches"])
    if not ended and not connection.as_json:
        typer.echo("No batch is running; `tidegate batches list` shows those that have ended.")
    _report_and_exit(ended, as_json=connection.as_json)


@batches_app.command()
@with_connection
def cancel(connection: ServerConnection, batch_id: BatchId) -> None:
    """Cancel a batch.

    Requests in flight may still complete; the other lines end as batch_cancelled.
    """
    path_segment(batch_id)
    body = connection.run(partial(cancel_batch, batch_id=batch_id))
    _print_batch(body, as_json=connection.as_json)


def _local_file(source: str) -> Path | None:
    """Return the path of an input on this machine; None if it is the id of an uploaded file."""
    path = Path(source)
    if path.is_file():
        return path
    if "/" in source or path.suffix:
        raise SettingsInvalid(
            f"There is no file '{sanitize(source)}' on this machine: give its path, or the id of "
            "an uploaded file."
        )
    path_segment(source)
    return None


async def _uploaded(server: ApiClient, path: Path) -> str:
    with progress(f"Uploading {sanitize(path.name, 40)}") as on_progress:
        body = await upload(server, FileUpload(path=path, purpose="batch"), on_progress)
    return decode(body, FileObject).id


async def _watched(
    server: ApiClient, batch_ids: Sequence[str], every: float, *, as_json: bool
) -> Sequence[BatchObject]:
    console = Console(highlight=False)
    with open_view(as_json=as_json, console=console) as show:
        return await Watch(server, batch_ids, every_seconds=every).until_all_end(show)


def _report_and_exit(ended: Sequence[BatchObject], *, as_json: bool) -> None:
    """Print what to do next; exit with code 4 if a batch did not complete."""
    if not as_json:
        for batch in ended:
            for line in _next_steps(batch):
                typer.echo(line, err=True)
    if any(batch.status != "completed" for batch in ended):
        sys.exit(ExitCode.PROBLEM_FOUND)


def _next_steps(batch: BatchObject) -> list[str]:
    name = sanitize(batch.id)
    lines = [] if batch.status == "completed" else [f"{name} ended as {sanitize(batch.status)}."]
    lines += problem_lines(batch)
    if batch.output_file_id:
        lines.append(f"Results: tidegate files download {sanitize(batch.output_file_id)}")
    if batch.error_file_id and batch.counts.failed:
        lines.append(
            f"{batch.counts.failed} failed lines: tidegate files download "
            f"{sanitize(batch.error_file_id)}"
        )
    return lines


def _exit_interrupted(running: Sequence[str]) -> NoReturn:
    if running:
        names = ", ".join(sanitize(name) for name in running)
        typer.echo(
            f"tidegate: no longer watching; still running: {names}. `tidegate batches watch` "
            "watches again, `tidegate batches cancel` cancels a batch.",
            err=True,
        )
    else:
        typer.echo("tidegate: interrupted before the batch was created.", err=True)
    sys.exit(ExitCode.INTERRUPTED)


def _notes(pairs: Sequence[str] | None) -> dict[str, str]:
    notes: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (equals and key):
            raise SettingsInvalid(f"--metadata {sanitize(pair)} must have the form KEY=VALUE.")
        if key in notes:
            raise SettingsInvalid(f"--metadata gives '{sanitize(key)}' twice.")
        notes[key] = value
    return notes


def _print_batch(body: bytes, *, as_json: bool) -> None:
    if as_json:
        typer.echo(compact_json(body))
        return
    for line in batch_lines(decode(body, BatchObject)):
        typer.echo(line)
