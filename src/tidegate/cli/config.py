"""`tidegate config`: shows and checks the settings, and prints an example file."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib import resources
from pathlib import Path

import typer
import yaml

from tidegate.cli.settings_flags import Assignments, ConfigFile, flags_of
from tidegate.config import Loaded, check_serving, load

MASK = "********"
SECRETS = frozenset({"api_key", "keys", "password"})
# Mappings of which only the names are shown: any value may be a secret.
SECRET_VALUES = frozenset({"headers", "options"})
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")

config_app = typer.Typer(
    help="Show, check or explain the settings.", no_args_is_help=True, rich_markup_mode=None
)


@config_app.command()
def show(config: ConfigFile = None, assignments: Assignments = None) -> None:
    """Print every setting with its value and where it came from; secrets are masked."""
    loaded = load(file=config, flags=flags_of(assignments))
    for line in rendered(loaded):
        typer.echo(line)


@config_app.command()
def check(config: ConfigFile = None, assignments: Assignments = None) -> None:
    """Check whether `serve` accepts the settings: exit code 0, or 2 with the reason."""
    loaded = load(file=config, flags=flags_of(assignments))
    check_serving(loaded.settings)
    typer.echo(f"The settings are valid ({loaded.file or 'no file'}).")


@config_app.command()
def example() -> None:
    """Print a complete, valid configuration file with comments."""
    typer.echo(example_text(), nl=False)


def example_text() -> str:
    """Return the example file that comes with the package."""
    return resources.files("tidegate.cli").joinpath("example.yaml").read_text("utf-8")


def rendered(loaded: Loaded) -> Iterator[str]:
    """Yield the settings as lines of YAML, each value with its origin as a comment."""
    yield from _group(loaded.settings, "", 0, loaded.origins)


def _group(value: object, path: str, depth: int, origins: Mapping[str, str]) -> Iterator[str]:
    for name, inner in _members(value).items():
        dotted = f"{path}.{name}" if path else name
        margin = "  " * depth
        if _members(inner) and name not in SECRET_VALUES:
            yield f"{margin}{_scalar(name)}:"
            yield from _group(inner, dotted, depth + 1, origins)
        else:
            text = printed(masked(name, inner))
            yield f"{margin}{_scalar(name)}: {text}  # {_origin(dotted, origins)}"


def _members(value: object) -> Mapping[str, object]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return value if isinstance(value, Mapping) else {}


def masked(name: str, value: object) -> object:
    """Return a value that is safe to print: keys, headers and options of back-ends are hidden."""
    if value is None:
        return None
    if name in SECRETS:
        return [MASK] * len(value) if isinstance(value, tuple | list) else MASK
    if name in SECRET_VALUES and isinstance(value, Mapping):
        return {str(key): MASK for key in value}
    if isinstance(value, str):
        return _USER_INFO.sub(MASK, value)
    return value


def _origin(dotted: str, origins: Mapping[str, str]) -> str:
    """Return the origin of a setting, or of the nearest group around it that was given whole."""
    while dotted:
        if dotted in origins:
            return origins[dotted]
        dotted = dotted.rpartition(".")[0]
    return "default"


def printed(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple | frozenset):
        value = [str(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
