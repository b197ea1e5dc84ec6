"""`tidegate doctor`: checks an installation, and says how to fix what is wrong."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import orjson
import typer
import uvloop
from rich.console import Console
from rich.text import Text

from tidegate import __version__
from tidegate.cli.config import masked, printed
from tidegate.cli.exit_codes import ExitCode
from tidegate.cli.settings_flags import AsJson, Assignments, ConfigFile, DataDir, Upstream, flags_of
from tidegate.config import Loaded, Settings, UpstreamSettings, load
from tidegate.doctor.finding import Finding, Level, fail, ok
from tidegate.doctor.ledger import examine_storage
from tidegate.doctor.machine import examine_directory, examine_limits
from tidegate.doctor.ports import examine_ports
from tidegate.doctor.upstreams import examine_upstreams
from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.clock import SystemClock
from tidegate.runtime.interpreter import hot_path_state

NO_URL = "http://unset.invalid"
STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def doctor(
    *,
    config: ConfigFile = None,
    upstream: Upstream = None,
    data_dir: DataDir = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also ask each model server for one token.")
    ] = False,
    as_json: AsJson = False,
    assignments: Assignments = None,
) -> None:
    """Find what is wrong, and how to fix it.

    It checks settings, disk, ledger, ports and model servers, and changes nothing. The exit code is
    1 if a check fails; warnings alone are exit code 0.
    """
    found: list[Finding] = []
    try:
        flags = flags_of(assignments, upstream__url=upstream, data_dir=data_dir)
        loaded = load(file=config, flags=flags)
    except SettingsInvalid as exc:
        found.append(
            fail("settings", str(exc), "Fix that; `tidegate config example` prints a valid file.")
        )
        _print(found, as_json=as_json)
    else:
        found += _settings(loaded)
        _print(found, as_json=as_json)
        uvloop.run(_examine(loaded.settings, found, probe=probe, as_json=as_json))
    failures = sum(finding.level is Level.FAIL for finding in found)
    if as_json:
        members = {
            "ok": not failures,
            "findings": [dataclasses.asdict(finding) for finding in found],
        }
        typer.echo(orjson.dumps(members).decode())
    else:
        warnings = sum(finding.level is Level.WARN for finding in found)
        typer.echo(
            f"{len(found)} checks, {_counted(warnings, 'warning')}, "
            f"{_counted(failures, 'failure')}."
        )
    sys.exit(ExitCode.FAILED if failures else ExitCode.OK)


async def _examine(settings: Settings, found: list[Finding], *, probe: bool, as_json: bool) -> None:
    """Make each check, in the order in which an operator would fix things."""

    def note(finding: Finding) -> None:
        found.append(finding)
        _print([finding], as_json=as_json)

    clock = SystemClock()
    for finding in (*examine_directory(settings), examine_limits(settings)):
        note(finding)
    for checks in (
        examine_storage(settings, clock),
        examine_ports(settings, clock),
        examine_upstreams(settings, probe=probe),
    ):
        async for finding in checks:
            note(finding)


def _settings(loaded: Loaded) -> Iterator[Finding]:
    """Yield the settings that are given, with their values unless these are secrets.

    Settings that repeat their default, as in a copy of the example file, are only counted.
    """
    yield ok(
        "version", f"tidegate {__version__}, Python {sys.version.split()[0]}, {hot_path_state()}."
    )
    yield ok("settings", f"They are valid ({loaded.file or 'no file'}).")
    # If a model server is configured at all, its other settings have defaults; its URL has none.
    defaults = Settings(upstream=UpstreamSettings(url=NO_URL))
    repeated = 0
    for name, origin in loaded.origins.items():
        if _is_default(loaded.settings, defaults, name):
            repeated += 1
            continue
        yield ok("settings", f"{name}{_shown(loaded.settings, name)} ({origin})")
    if repeated:
        yield ok("settings", f"{repeated} more are set to their default.")


def _is_default(settings: Settings, defaults: Settings, name: str) -> bool:
    if name.startswith("upstreams."):
        return False
    return value_at(settings, name) == value_at(defaults, name)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _shown(settings: Settings, name: str) -> str:
    """Return a value after a colon; nothing for a group, as its members may be secrets."""
    value = value_at(settings, name)
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        return ""
    return f": {printed(masked(name.rpartition('.')[2], value))}"


def value_at(group: object, name: str) -> object:
    """Return the value of a setting by its dotted name; the name of a model may contain dots."""
    if not name:
        return group
    if isinstance(group, Mapping):
        for key, value in group.items():
            if f"{name}.".startswith(f"{key}."):
                return value_at(value, name[len(key) + 1 :])
        return None
    first, _, rest = name.partition(".")
    return value_at(getattr(group, first, None), rest)


def _print(found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for finding in found:
        line = Text()
        line.append(f"{finding.level:<4}  ", style=STYLES[finding.level])
        line.append(f"{finding.area}: {finding.message}")
        if finding.advice:
            line.append(f" {finding.advice}", style="bold")
        console.print(line)
