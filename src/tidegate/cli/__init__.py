"""The command line: one file for each command.

`exit_codes` lists the exit codes of all commands.
"""

import sys

import typer
from rich.console import Console

from tidegate.cli.batches import batches_app
from tidegate.cli.config import config_app
from tidegate.cli.doctor import doctor
from tidegate.cli.engine_command import engine
from tidegate.cli.exit_codes import ExitCode
from tidegate.cli.files import files_app
from tidegate.cli.gc import gc
from tidegate.cli.openapi import openapi
from tidegate.cli.processor import processor
from tidegate.cli.run import run
from tidegate.cli.serve import serve
from tidegate.cli.simulate import simulate
from tidegate.cli.validate import validate
from tidegate.cli.version import version
from tidegate.domain.errors import SettingsInvalid, TidegateError

_TYPERS_INTERRUPTED = 130

app = typer.Typer(
    name="tidegate",
    help="OpenAI's Batch API on your own GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run)
app.command()(validate)
app.command()(serve)
app.command()(processor)
app.command()(gc)
app.add_typer(files_app, name="files")
app.add_typer(batches_app, name="batches")
app.command()(doctor)
app.command()(engine)
app.command()(simulate)
app.add_typer(config_app, name="config")
app.command()(openapi)
app.command()(version)


def main() -> None:
    """Run the command line; print an error of ours as one line on stderr, without a traceback."""
    try:
        # In standalone mode Typer spreads its message about wrong arguments over four lines.
        status = app(standalone_mode=False)
    except typer.TyperException as wrong:
        _print_usage_error(wrong)
        sys.exit(wrong.exit_code)
    except TidegateError as error:
        _print_error(str(error))
        in_settings = isinstance(error, SettingsInvalid)
        sys.exit(ExitCode.WRONG_SETTINGS if in_settings else ExitCode.FAILED)
    if status == _TYPERS_INTERRUPTED:
        _print_error("interrupted.")
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(status)


def _print_usage_error(wrong: typer.TyperException) -> None:
    context: typer.Context | None = getattr(wrong, "ctx", None)
    message = wrong.format_message()
    if context is not None and message == context.get_help():
        typer.echo(message, err=True)
        return
    message = " ".join(message.replace(": Value error, ", ": ").split()).removesuffix(".")
    command = "tidegate" if context is None else context.command_path
    _print_error(f"{message}. See `{command} --help`.")


def _print_error(message: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    console.print(f"tidegate: {message}", style="red")
