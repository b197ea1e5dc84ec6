"""`tidegate version`: which version this is."""

import platform

import typer

from tidegate import __version__
from tidegate.runtime.interpreter import hot_path_state


def version() -> None:
    """Print the versions of Tidegate and of Python, and whether the hot path is compiled."""
    typer.echo(f"tidegate {__version__} on Python {platform.python_version()}, {hot_path_state()}")
