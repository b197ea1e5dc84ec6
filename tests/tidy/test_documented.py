"""All that an operator can set, call or watch is in the docs, with its right default."""

import re
from pathlib import Path

import typer.main
from prometheus_client import CollectorRegistry
from typer.core import TyperArgument, TyperOption

from testkit.reference import commands, setting_default
from tidegate.cli import app
from tidegate.cli.config import example_text
from tidegate.config import names
from tidegate.telemetry import logs
from tidegate.telemetry.logs import EVENTS
from tidegate.telemetry.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(__file__).parents[2] / "src"
DOTTED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)(?:[ =:][^`]*)?`")
FILE_ENDINGS = {"db", "jsonl", "md", "py", "sql", "toml", "yaml"}
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \| [^|]+ \|$", re.MULTILINE)


def settings() -> list[str]:
    """Return every dotted name; those under a model's own server are those of `upstream`."""
    return [name for name, _ in names() if not name.startswith("upstreams.")]


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(ROW.findall((DOCS / "configuration.md").read_text()))
    assert sorted(rows) == sorted(settings())
    for name, shown in rows.items():
        expected = "required" if name == "upstream.url" else f"`{setting_default(name)}`"
        assert shown == expected, name


def unknown_settings(text: str) -> list[str]:
    """Return what is written like a setting and is none; a group may stand for its members."""
    known = [name for name, _ in names()]
    groups = {name.partition(".")[0] for name in known}
    written = [name for name in DOTTED.findall(text) if name.partition(".")[0] in groups]
    return [
        name
        for name in written
        if name.rpartition(".")[2] not in FILE_ENDINGS
        and not any(f"{item}.".startswith(f"{name}.") for item in known)
    ]


def test_every_setting_that_the_docs_name_exists() -> None:
    pages = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
    assert [
        (page.name, name) for page in pages for name in unknown_settings(page.read_text())
    ] == []


def test_a_setting_that_does_not_exist_is_found() -> None:
    text = (
        "`batch_api.early_results` `server.early_results` `api.limits` `server.prot=1` `gateway.py`"
    )
    assert unknown_settings(text) == ["server.early_results", "server.prot"]


def test_every_setting_is_in_the_example_with_a_comment() -> None:
    found: set[str] = set()
    path: list[str] = []
    previous = ""
    for line in example_text().splitlines():
        match = re.match(r"( *)(\w+):(.*)$", line)
        if match:
            path[len(match[1]) // 2 :] = [match[2]]
            found.add(".".join(path))
            if match[3]:
                assert previous.lstrip().startswith("# "), f"no comment above {'.'.join(path)}"
        previous = line
    assert set(settings()) <= found
    assert "# upstreams:" in example_text()


def test_every_command_and_flag_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    reference = (DOCS / "reference" / "commands.md").read_text()
    found = list(commands(typer.main.get_command(app)))
    assert len(found) >= 7
    for path, command in found:
        assert command.help, f"'tidegate {path}' says nothing of itself"
        own = section_of(page, path) or section_of(page, path.partition(" ")[0])
        assert f"`tidegate {path}" in own, f"docs/cli.md does not mention 'tidegate {path}'"
        section = section_of(reference, path)
        for item in command.params:
            assert isinstance(item, TyperOption | TyperArgument), item
            assert item.help, f"'tidegate {path}' does not explain {item.name}"
            for flag in item.opts if isinstance(item, TyperOption) else [item.metavar or "?"]:
                assert f"`{flag}" in section, f"the reference lacks 'tidegate {path} {flag}'"


def section_of(page: str, path: str) -> str:
    """Return the section of a page about a command, with its heading; empty if there is none."""
    heading = f"## `tidegate {path}`\n"
    _, found, rest = page.partition(heading)
    return found + rest.partition("\n## ")[0]


def test_every_metric_is_documented() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text()
    documented = set(re.findall(r"`(tidegate_\w+)`", page))
    families = {family.name for family in _registry().collect()}
    assert families, "no metric was found"
    for name in families:
        assert {name, f"{name}_total"} & documented, name
    for name in documented:
        assert {name, name.removesuffix("_total")} & families, f"{name} does not exist"


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Metrics(registry)
    return registry


def test_every_log_event_is_written_somewhere() -> None:
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "logs.py")
    events = [
        name for name, value in vars(logs).items() if isinstance(value, str) and value in EVENTS
    ]
    assert events
    assert [name for name in events if name not in text] == []


def test_every_log_event_is_documented() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text()
    assert [event for event in sorted(EVENTS) if f"`{event}`" not in page] == []


def test_the_changelog_lists_every_command_and_api() -> None:
    text = (DOCS.parent / "CHANGELOG.md").read_text()
    first = {path.partition(" ")[0] for path, _ in commands(typer.main.get_command(app))}
    ways = {"/v1/files", "/v1/batches", "/v1/models", "/health", "/ready", "/metrics"}
    told = {*(f"`tidegate {name}" for name in first), *(f"`{way}`" for way in ways)}
    assert sorted(item for item in told if item not in text) == []
