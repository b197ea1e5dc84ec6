"""`tidegate gc`: one full round of the collector, or a report of what it would do."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from tidegate.cli.exit_codes import ExitCode
from tidegate.cli.settings_flags import AsJson, Assignments, ConfigFile, DataDir, flags_of
from tidegate.collector.report import Report
from tidegate.config import load
from tidegate.telemetry.logs import configure
from tidegate.wiring.gc import run_collection


def gc(
    *,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be done, and change nothing.")
    ] = False,
    as_json: AsJson = False,
    assignments: Assignments = None,
) -> None:
    """Reclaim space, find lost bytes, end orphaned batches; safe beside running servers."""
    settings = load(file=config, flags=flags_of(assignments, data_dir=data_dir)).settings
    configure(settings.logs.format, level=settings.logs.level)
    report = asyncio.run(run_collection(settings, dry=dry_run))
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **asdict(report)}))
    else:
        for line in summary(report, dry=dry_run):
            typer.echo(line)
    if report.held_up or report.overdue:
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.PROBLEM_FOUND if report.drift else ExitCode.OK)


def summary(report: Report, *, dry: bool) -> Iterator[str]:
    """Yield the report as lines of text; counts of zero are left out."""
    yield "This is what a round would do now:" if dry else "Done:"
    found = [f"{count} {words}" for count, words in _counts(report) if count]
    yield from (f"  {text}" for text in found or ["nothing to do"])
    for name in report.unknown_blob_names:
        yield f"  left alone: {name!r} is not a name of ours; move it away if it is not needed"
    for damage in report.damages:
        yield f"  {'repaired' if damage.repaired else 'LOST'}: {damage.sentence}"
    if report.batches_left:
        yield (
            f"  left to the processors that are alive: {report.batches_left} batches to end (a "
            "killed processor counts as alive for processor.claims.lease_seconds)"
        )
    for batch_id in report.overdue:
        yield (
            f"  overdue: {batch_id} could not be ended: check whether its plan is LOST or the "
            "disk is full, fix that, and run `tidegate gc` again"
        )
    for reason in report.held_up:
        yield f"  held up: {reason}"


def _counts(report: Report) -> list[tuple[int, str]]:
    """Return each count with the words that follow it."""
    return [
        (report.batches_ended, "batches ended: cancelled, expired or completed"),
        (report.files_released, f"unused files released ({report.bytes_released} bytes in all)"),
        (report.batches_dropped, "old batches removed"),
        (report.rows_purged, "old rows removed"),
        (report.blobs_deleted, f"blobs deleted ({report.bytes_deleted} bytes)"),
        (report.leftovers_removed, "unfinished files removed"),
        (report.files_compacted, f"files compacted ({report.parts_merged} parts fewer)"),
        (report.lines_rerun, "lines run again because their results were lost"),
        (report.unknown_blobs, "blobs left alone that are not ours"),
    ]
