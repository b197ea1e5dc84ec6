"""Flags of several commands: the configuration file, and any setting by its dotted name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tidegate.domain.errors import SettingsInvalid

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The configuration file, YAML or TOML. Else TIDEGATE_CONFIG, else ./tidegate.yaml.",
        show_default=False,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting by its dotted name, for example --set processor.limits.in_flight_max=64.",
        show_default=False,
    ),
]
Upstream = Annotated[
    str | None, typer.Option(help="The base URL of the model server for every model.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where all data is kept. [default: ./tidegate-data]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


def flags_of(assignments: Sequence[str] | None, **named: object) -> dict[str, object]:
    """Return flags by dotted setting name; a double underscore in a keyword stands for the dot.

    None and False mean that a flag was not given; 0 is a value.

    Raises:
        SettingsInvalid: an assignment has no equals sign, or sets what a flag of its own sets.
    """
    flags = {
        name.replace("__", "."): value
        for name, value in named.items()
        if value is not None and value is not False
    }
    for assignment in assignments or ():
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsInvalid(f"--set {assignment} must have the form NAME=VALUE.")
        if name in flags:
            raise SettingsInvalid(f"{name} is given twice on the command line.")
        flags[name] = value
    return flags
