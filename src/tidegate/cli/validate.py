"""`tidegate validate`: every problem of a batch file, and a summary of its content."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.exit_codes import ExitCode
from tidegate.cli.settings_flags import Assignments, ConfigFile, flags_of
from tidegate.config import load
from tidegate.domain.batch import Problem
from tidegate.domain.errors import Refused, SettingsInvalid
from tidegate.offline.job import endpoint_of
from tidegate.offline.validate import Validation, ValidationReport

NAMES_SHOWN_MAX = 10


def validate(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A batch file (JSONL).", show_default=False)
    ],
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="chat, completions, embeddings, responses or a path. "
            "[default: that of the first line, else chat]"
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON lines: one for each problem, then the summary."),
    ] = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Check a batch file as `serve` would, and send nothing; exit code 1 if it has a problem."""
    settings = load(file=config, flags=flags_of(assignments)).settings
    rules, planning = settings.batch_api, settings.processor.planning
    with Validation(rules, planning, lambda: tempfile.TemporaryFile(buffering=0)) as validation:
        try:
            path = None if endpoint is None else endpoint_of(endpoint)
            report = asyncio.run(validation.read(source, path))
        except Refused as refused:
            raise SettingsInvalid(str(refused)) from refused
        for problem in validation.problems():
            typer.echo(json.dumps(asdict(problem)) if as_json else _as_text(source, problem))
    if as_json:
        last = {"valid": not report.problems, **asdict(report)}
        typer.echo(json.dumps({**last, "shared_prefix": round(report.shared_prefix, 4)}))
    else:
        for line in summary(report):
            typer.echo(line)
    sys.exit(ExitCode.FAILED if report.problems else ExitCode.OK)


def summary(report: ValidationReport) -> Iterator[str]:
    """Yield a report as lines of text."""
    problems = "1 problem" if report.problems == 1 else f"{report.problems:,} problems"
    found = problems if report.problems else "valid"
    lines = "1 line" if report.lines == 1 else f"{report.lines:,} lines"
    yield f"{lines} for {report.endpoint}: {found}"
    yield f"  models             {_names(report.models)}"
    yield f"  endpoints          {_names(report.endpoints)}"
    yield f"  duplicate prompts  {report.duplicate_prompts:,}"
    yield f"  shared prefixes    {report.shared_prefix:.0%} of all prompts"
    yield (
        f"  tokens, estimated  {report.input_tokens:,} in, up to {report.output_tokens_max:,} out "
        "if a line sets a bound"
    )


def _names(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} ({count:,})" for name, count in most[:NAMES_SHOWN_MAX])
    more = len(most) - NAMES_SHOWN_MAX
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


def _as_text(source: Path, problem: Problem) -> str:
    where = "" if problem.line is None else f"{problem.line}:"
    return f"{source}:{where} {problem.message} ({problem.code})"
