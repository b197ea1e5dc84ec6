"""The command line: one file for each command.

Exit status: 0 ended well; 1 a service died, a command failed, `run` has failed lines or `validate`
found problems; 2 wrong settings, arguments or input of `run`;
3 ended by a signal before its work was done; 4 what a command looked at is not well: `gc` found
bytes gone that it can't mend, or a batch that was waited for did not complete.
"""

import sys

import typer
from rich.console import Console

from tidegate.cli.batches import batches_app
from tidegate.cli.config import config_app
from tidegate.cli.doctor import doctor
from tidegate.cli.engine_command import engine
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

DIED = 1
WRONG_SETTINGS = 2
INTERRUPTED = 3
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
    """Run the command line; an error of ours is one clear line on stderr, without a traceback."""
    try:
        # Standing alone, Typer would spread what it says of wrong arguments over four lines.
        status = app(standalone_mode=False)
    except typer.TyperException as wrong:
        _say_what_is_wrong(wrong)
        sys.exit(wrong.exit_code)
    except TidegateError as error:
        _say(str(error))
        sys.exit(WRONG_SETTINGS if isinstance(error, SettingsInvalid) else DIED)
    if status == _TYPERS_INTERRUPTED:
        _say("interrupted.")
        sys.exit(INTERRUPTED)
    sys.exit(status)


def _say_what_is_wrong(wrong: typer.TyperException) -> None:
    context: typer.Context | None = getattr(wrong, "ctx", None)
    said = wrong.format_message()
    if context is not None and said == context.get_help():
        typer.echo(said, err=True)
        return
    said = " ".join(said.replace(": Value error, ", ": ").split()).removesuffix(".")
    command = "tidegate" if context is None else context.command_path
    _say(f"{said}. `{command} --help` tells more.")


def _say(message: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    console.print(f"tidegate: {message}", style="red")
