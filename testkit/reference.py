"""The reference pages of the docs, written from the code: run it with the folder to write to.

`./run docs` writes them, and a test compares what stands in docs/reference with what this module
says, so that the pages can't lag behind.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer.main
from prometheus_client import CollectorRegistry
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tidegate.api import errors as api_errors
from tidegate.api.errors import render
from tidegate.cli import app
from tidegate.cli.config import example_text, printed
from tidegate.client import errors as client_errors
from tidegate.config import load, names
from tidegate.domain import errors as domain_errors
from tidegate.domain.errors import Refused, TidegateError
from tidegate.telemetry import logs
from tidegate.telemetry.metrics import Metrics

NOTICE = "<!-- Written by `./run docs` from the code: change the code, not this page. -->\n\n"
_EXAMPLE_LINE = re.compile(r"( *)(\w+):(.*)$")
_EVENT_LINE = re.compile(r'^[A-Z_]+ = "([a-z_]+)"  # (.+)$', re.MULTILINE)
_KINDS: Mapping[object, str] = {Path: "PATH", int: "N", float: "NUMBER"}
_SAMPLE_LABELS = frozenset({"le", "quantile"})


def pages() -> Mapping[str, str]:
    """Return every reference page by the name of its file."""
    return {
        "commands.md": NOTICE + "\n".join(_commands_page()),
        "errors.md": NOTICE + "\n".join(_errors_page()),
        "metrics.md": NOTICE + "\n".join(_metrics_page()),
        "settings.md": NOTICE + "\n".join(_settings_page()),
    }


def commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, TyperCommand]]:
    """Yield every command that does something, with the words that call it."""
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        assert isinstance(command, TyperCommand), command
        yield " ".join(path), command


def setting_default(name: str) -> str:
    """Return the default of a setting as YAML on one line."""
    value: object = load(environment={}, flags={"upstream.url": "http://x"}).settings
    for part in name.split("."):
        value = getattr(value, part)
    return printed(value)


def _commands_page() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "What each command takes; [the command line](../cli.md) says how they are used, and what"
    yield "their exit status means."
    for path, command in commands(typer.main.get_command(app)):
        yield ""
        yield f"## `tidegate {path}`"
        yield ""
        yield _cell(command.help or "")
        yield ""
        rows = [_parameter(item) for item in command.params]
        if rows:
            yield "| flag or argument | default | meaning |"
            yield "|---|---|---|"
            yield from rows
    yield ""


def _parameter(item: object) -> str:
    assert isinstance(item, TyperOption | TyperArgument), item
    if isinstance(item, TyperOption):
        shown = ", ".join(f"`{flag}`" for flag in item.opts)
        if not item.is_flag:
            shown += f" {item.metavar or _KINDS.get(item.type_descriptor.annotation, 'TEXT')}"
    else:
        shown = f"`{item.metavar or (item.name or '').upper()}`"
    default = item.default
    # Defaults in words stand in the meaning.
    plain = default is None or default is False or callable(default)
    return f"| {shown} | {'' if plain else f'`{default}`'} | {_cell(item.help or '')} |"


def _settings_page() -> Iterator[str]:
    comments = dict(_comments(example_text()))
    yield "# Settings"
    yield ""
    yield "Every setting by its dotted name; [configuration](../configuration.md) says how they"
    yield "are given. Those of `upstream` are also those of each group in `upstreams`."
    yield ""
    yield "| setting | environment | default | meaning |"
    yield "|---|---|---|---|"
    for name, _ in names():
        if not name.startswith("upstreams."):
            variable = f"TIDEGATE_{name.replace('.', '__').upper()}"
            default = "required" if name == "upstream.url" else f"`{setting_default(name)}`"
            yield f"| `{name}` | `{variable}` | {default} | {_cell(comments[name])} |"
    yield ""


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Yield each setting of the example with the comment above it."""
    path: list[str] = []
    above: list[str] = []
    for line in text.splitlines():
        match = _EXAMPLE_LINE.match(line)
        if line.lstrip().startswith("#"):
            above.append(line.lstrip().removeprefix("#").strip())
        elif match:
            path[len(match[1]) // 2 :] = [match[2]]
            yield ".".join(path), " ".join(above)
            above = []
        else:
            above = []


def _errors_page() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Every error by its name inside, with the HTTP status that the API gives it;"
    yield "[reading errors](../errors.md) says what to do about those that users meet."
    for title, module in (
        ("Everywhere", domain_errors),
        ("In the API", api_errors),
        ("In commands that speak to a server", client_errors),
    ):
        yield ""
        yield f"## {title}"
        yield ""
        yield "| name | kind of | status | meaning |"
        yield "|---|---|---|---|"
        for kind in _errors_of(module.__name__, vars(module)):
            status = _status(kind) if module is not client_errors else ""
            parent = kind.__bases__[0].__name__
            yield f"| `{kind.__name__}` | `{parent}` | {status} | {_first_line(kind)} |"
    yield ""


def _errors_of(module: str, found: Mapping[str, object]) -> list[type[TidegateError]]:
    return [
        item
        for item in found.values()
        if isinstance(item, type) and issubclass(item, TidegateError) and item.__module__ == module
    ]


def _status(kind: type[TidegateError]) -> str:
    """Return the status with which the API answers an error of this kind."""
    error = kind.__new__(kind)
    Exception.__init__(error, "")
    if isinstance(error, Refused):
        error.param = error.code = None
    for name in ("allowed", "length"):
        setattr(error, name, "")
    return str(render(error).status)


def _metrics_page() -> Iterator[str]:
    yield "# Metrics and log events"
    yield ""
    yield "[Operation](../operation.md) lists those to alert on."
    yield ""
    yield "## Metrics"
    yield ""
    yield "| metric | kind | labels | meaning |"
    yield "|---|---|---|---|"
    registry = CollectorRegistry()
    Metrics(registry)
    for metric in sorted(registry.collect(), key=lambda metric: metric.name):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = ", ".join(_labels(registry, metric.name))
        yield f"| `{name}` | {metric.type} | {labels} | {_cell(metric.documentation)} |"
    yield ""
    yield "## Log events"
    yield ""
    yield "| event | meaning |"
    yield "|---|---|"
    for event, meaning in _EVENT_LINE.findall(inspect.getsource(logs)):
        yield f"| `{event}` | {_cell(meaning)} |"
    yield ""


def _labels(registry: CollectorRegistry, name: str) -> list[str]:
    # A metric with labels has no samples before it is counted, so its declaration is asked.
    declared = registry._names_to_collectors[name]  # noqa: SLF001 -- labels have no public accessor
    return [label for label in getattr(declared, "_labelnames", ()) if label not in _SAMPLE_LABELS]


def _first_line(kind: type[object]) -> str:
    return _cell((kind.__doc__ or "").splitlines()[0])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(folder: Path) -> None:
    """Write every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
