"""`tidegate files`: the files of any OpenAI-compatible server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress as Bars,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tidegate.cli.connection import ServerConnection, with_connection
from tidegate.cli.tables import FILE_HEADS, file_lines, file_row, print_list
from tidegate.cli.units import bytes_of
from tidegate.client.download import download as download_file, download_to_stream
from tidegate.client.errors import ServerRefused
from tidegate.client.files import (
    FileUpload,
    OnProgress,
    delete_file,
    get_file,
    list_files,
    upload as upload_file,
)
from tidegate.client.objects import Deleted, FileObject, compact_json, decode, path_segment
from tidegate.client.sanitize import sanitize
from tidegate.client.server import ApiClient

LIST_DEFAULT = 20
STDOUT = Path("-")

files_app = typer.Typer(
    help="The files of any OpenAI-compatible server.", no_args_is_help=True, rich_markup_mode=None
)
FileId = Annotated[str, typer.Argument(metavar="FILE_ID", help="The id of the file.")]


@files_app.command()
@with_connection
def upload(
    connection: ServerConnection,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file on this machine.")],
    *,
    purpose: Annotated[str, typer.Option(help="What it is for.")] = "batch",
    expires_after: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="When it expires; else the server decides."),
    ] = None,
) -> None:
    """Upload a file and print its id.

    It is streamed, so its size does not matter. With --json its object is printed.
    """
    wanted = FileUpload(path=path, purpose=purpose, expires_seconds=expires_after)

    async def work(server: ApiClient) -> bytes:
        with progress(f"Uploading {sanitize(path.name, 40)}") as on_progress:
            return await upload_file(server, wanted, on_progress)

    body = connection.run(work)
    typer.echo(compact_json(body) if connection.as_json else sanitize(decode(body, FileObject).id))


@files_app.command("list")
@with_connection
def list_(
    connection: ServerConnection,
    *,
    limit: Annotated[
        int, typer.Option(min=0, help="How many at most, newest first; 0 for all.")
    ] = LIST_DEFAULT,
    purpose: Annotated[str | None, typer.Option(help="Only files of this purpose.")] = None,
) -> None:
    """List files, newest first.

    With --json it prints one object on each line.
    """

    async def work(server: ApiClient) -> None:
        items = list_files(server, limit=limit or None, purpose=purpose)
        await print_list(items, FILE_HEADS, file_row, as_json=connection.as_json)

    connection.run(work)


@files_app.command()
@with_connection
def get(connection: ServerConnection, file_id: FileId) -> None:
    """Print what is known about a file."""
    path_segment(file_id)
    body = connection.run(partial(get_file, file_id=file_id))
    if connection.as_json:
        typer.echo(compact_json(body))
        return
    for line in file_lines(decode(body, FileObject)):
        typer.echo(line)


@files_app.command()
@with_connection
def download(
    connection: ServerConnection,
    file_id: FileId,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The target; '-' is standard output. [default: FILE_ID.jsonl]"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the target if it exists.")
    ] = False,
) -> None:
    """Download the content of a file.

    If it was interrupted, the same command resumes it.
    """
    target = output or Path(f"{path_segment(file_id)}.jsonl")

    async def work(server: ApiClient) -> None:
        if target == STDOUT:
            await download_to_stream(server, file_id, sys.stdout.buffer)
            return
        with progress(f"Downloading {sanitize(file_id, 40)}") as on_progress:
            done = await download_file(
                server, file_id, target, overwrite=overwrite, on_progress=on_progress
            )
        if connection.as_json:
            found = {"path": str(target), "bytes": done.bytes, "resumed_from": done.resumed_from}
            Console(highlight=False, soft_wrap=True, markup=False).print_json(
                data=found, indent=None
            )
        else:
            kept = f", {bytes_of(done.resumed_from)} of it resumed" if done.resumed_from else ""
            typer.echo(f"{target}: {bytes_of(done.bytes)}{kept}")

    connection.run(work)


@files_app.command()
@with_connection
def delete(connection: ServerConnection, file_id: FileId) -> None:
    """Delete a file."""
    path_segment(file_id)
    body = connection.run(partial(delete_file, file_id=file_id))
    gone = decode(body, Deleted)
    if not gone.deleted:
        raise ServerRefused("The server did not delete the file, and gave no reason.", status=200)
    typer.echo(compact_json(body) if connection.as_json else f"{sanitize(gone.id)} is deleted.")


@contextmanager
def progress(title: str) -> Iterator[OnProgress]:
    """Yield a callback for the progress of a transfer; it draws a bar if stderr is a terminal."""
    console = Console(stderr=True, highlight=False)
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
