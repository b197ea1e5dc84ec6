"""`tidegate version`: which version this is."""

import platform

import typer

from tidegate import __version__


def version() -> None:
    """Print the versions of Tidegate and of Python."""
    typer.echo(f"tidegate {__version__} on Python {platform.python_version()}")
