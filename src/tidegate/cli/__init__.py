"""The command line: one file for each command.

Exit status: 0 ended well; 1 a service died or a command failed; 2 wrong settings or arguments;
3 ended by a second signal, with requests cut off; 4 `gc` found bytes gone that it can't mend.
"""

import sys

import typer
from rich.console import Console

from tidegate.cli.config import config_app
from tidegate.cli.engine_command import engine
from tidegate.cli.gc import gc
from tidegate.cli.processor import processor
from tidegate.cli.serve import serve
from tidegate.cli.simulate import simulate
from tidegate.cli.version import version
from tidegate.domain.errors import SettingsInvalid, TidegateError

DIED = 1
WRONG_SETTINGS = 2

app = typer.Typer(
    name="tidegate",
    help="OpenAI's Batch API on your own GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(processor)
app.command()(gc)
app.command()(engine)
app.command()(simulate)
app.add_typer(config_app, name="config")
app.command()(version)


def main() -> None:
    """Run the command line; an error of ours is one clear line on stderr, without a traceback."""
    try:
        app()
    except TidegateError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        console.print(f"tidegate: {error}", style="red")
        sys.exit(WRONG_SETTINGS if isinstance(error, SettingsInvalid) else DIED)
