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

from tidegate.cli.figures import bytes_of
from tidegate.cli.reaching import ApiKeyFile, AsJson, BaseUrl, CaFile, TimeoutSeconds, reach
from tidegate.cli.shown import FILE_HEADS, file_lines, file_row, print_rows
from tidegate.client.access import TIMEOUT_SECONDS_DEFAULT
from tidegate.client.download import download as download_file, pour
from tidegate.client.errors import ServerRefused
from tidegate.client.files import (
    Progress,
    Upload,
    delete_file,
    get_file,
    list_files,
    upload as upload_file,
)
from tidegate.client.objects import Deleted, FileObject, on_one_line, read, step
from tidegate.client.server import Server
from tidegate.client.wording import plain

LIST_DEFAULT = 20
STDOUT = Path("-")

files_app = typer.Typer(
    help="The files of any OpenAI-compatible server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FileId = Annotated[str, typer.Argument(metavar="FILE_ID", help="The id of the file.")]


@files_app.command()
def upload(  # noqa: PLR0913 -- each parameter is one flag of the command line
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file on this machine.")],
    *,
    purpose: Annotated[str, typer.Option(help="What it is for.")] = "batch",
    expires_after: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="When it should go; else as the server likes."),
    ] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Upload a file and print its id.

    It goes out piece by piece, whatever its size. With --json its object is printed.
    """
    wanted = Upload(path=path, purpose=purpose, expires_seconds=expires_after)

    async def work(server: Server) -> bytes:
        with progress(f"Uploading {plain(path.name, 40)}") as tell:
            return await upload_file(server, wanted, tell)

    body = reach(
        work, base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout=timeout
    )
    typer.echo(on_one_line(body) if as_json else plain(read(body, FileObject).id))


@files_app.command("list")
def list_(  # noqa: PLR0913 -- each parameter is one flag of the command line
    *,
    limit: Annotated[
        int, typer.Option(min=0, help="How many at most, newest first; 0 for all.")
    ] = LIST_DEFAULT,
    purpose: Annotated[str | None, typer.Option(help="Only files of this purpose.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """List files, newest first.

    With --json one object on each line.
    """

    async def work(server: Server) -> None:
        rows = []
        async for item in list_files(server, limit=limit or None, purpose=purpose):
            if as_json:
                typer.echo(on_one_line(item))
            else:
                rows.append(file_row(read(item, FileObject)))
        if not as_json:
            print_rows(FILE_HEADS, rows)

    reach(work, base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout=timeout)


@files_app.command()
def get(
    file_id: FileId,
    *,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Print what is known of a file."""
    step(file_id)
    body = reach(
        partial(get_file, file_id=file_id),
        base_url=base_url,
        api_key_file=api_key_file,
        ca_file=ca_file,
        timeout=timeout,
    )
    if as_json:
        typer.echo(on_one_line(body))
        return
    for line in file_lines(read(body, FileObject)):
        typer.echo(line)


@files_app.command()
def download(  # noqa: PLR0913 -- each parameter is one flag of the command line
    file_id: FileId,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to; '-' is standard output. [default: FILE_ID.jsonl]"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Download the content of a file.

    Cut off, the same command goes on where it stopped.
    """
    target = output or Path(f"{step(file_id)}.jsonl")

    async def work(server: Server) -> None:
        if target == STDOUT:
            await pour(server, file_id, sys.stdout.buffer)
            return
        with progress(f"Downloading {plain(file_id, 40)}") as tell:
            done = await download_file(
                server, file_id, target, overwrite=overwrite, on_progress=tell
            )
        if as_json:
            found = {"path": str(target), "bytes": done.bytes, "resumed_from": done.resumed_from}
            Console(highlight=False, soft_wrap=True, markup=False).print_json(
                data=found, indent=None
            )
        else:
            kept = f", {bytes_of(done.resumed_from)} of it before" if done.resumed_from else ""
            typer.echo(f"{target}: {bytes_of(done.bytes)}{kept}")

    reach(work, base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout=timeout)


@files_app.command()
def delete(
    file_id: FileId,
    *,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    ca_file: CaFile = None,
    timeout: TimeoutSeconds = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Delete a file."""
    step(file_id)
    body = reach(
        partial(delete_file, file_id=file_id),
        base_url=base_url,
        api_key_file=api_key_file,
        ca_file=ca_file,
        timeout=timeout,
    )
    gone = read(body, Deleted)
    if not gone.deleted:
        raise ServerRefused("The server did not delete the file, and does not say why.", status=200)
    typer.echo(on_one_line(body) if as_json else f"{plain(gone.id)} is deleted.")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Give what shows how far a transfer is: a bar where standard error is a terminal."""
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
