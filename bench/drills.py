"""Real processes killed, stopped, starved of disk and raced: is each line there, and there once?"""

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import _drill_api
import _drill_cancel
import _drill_ends
import _drill_fair
import _drill_files
import _drill_full
import _drill_kill
import _drill_pause
import _drill_rolling
from _drill_children import STOP_SECONDS_MAX, Child, Children, DrillFailed
from _drill_world import Findings, Plan, Upstream, running_upstream, say

RESULT = "RESULT "
LANES = 3
LANE_POLL_SECONDS = 0.05

Drill = Callable[[Plan, Path, Upstream], Findings]

DRILLS: Mapping[str, Drill] = {
    "a": _drill_kill.drill,
    "b": _drill_pause.drill,
    "c": _drill_rolling.drill,
    "d": _drill_api.drill,
    "e": _drill_full.drill,
    "f": _drill_ends.drill,
    "g": _drill_fair.drill,
    "h": _drill_files.drill,
    "x": _drill_cancel.drill,
}
# These stand in the result by themselves; all others stand with their drill.
TOP = {
    "a": (
        "kills",
        "lease_seconds",
        "lines_failed",
        "requests_repeated",
        "in_flight_plus_commit_window",
        "takeover_seconds_p50",
        "takeover_seconds_max",
    ),
    "c": ("batches_failed_by_restart",),
    "d": ("acknowledged_lost",),
    "e": ("full_disk",),
    "g": ("small_batch_seconds", "small_batch_seconds_alone"),
    "x": ("cancel_seconds_p50", "cancel_seconds_max", "drain_seconds"),
}


def main() -> int:
    options = _options()
    # Asked to end, we end what we started first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-drills-", ignore_cleanup_errors=True) as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if options.quick and len(options.only) > 1:
            found = _run_in_lanes(options, folder)
        else:
            found = _run_in_turn(options, folder)
    result = summary(found) | {
        "quick": options.quick,
        "seed": options.seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(RESULT + json.dumps(result), flush=True)
    return 0 if result["ok"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, in under a minute")
    parser.add_argument("--only", default=",".join(DRILLS), help="such as a,c; x is the cancel")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-mount", action="store_true", help="e: bound files, mount nothing")
    parser.add_argument("--keep", type=Path, help="a new folder that keeps data and logs")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = sorted(set(options.only) - set(DRILLS))
    if unknown:
        parser.error(f"there is no drill {', '.join(unknown)}: choose of {', '.join(DRILLS)}")
    return options


def _run_in_turn(options: argparse.Namespace, folder: Path) -> dict[str, Findings]:
    plan = Plan(quick=options.quick, seed=options.seed, mounts=not options.no_mount)
    with running_upstream(folder) as upstream:
        return {letter: _run(letter, plan, folder, upstream) for letter in options.only}


def _run(letter: str, plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    started = time.monotonic()
    try:
        findings = DRILLS[letter](plan, folder, upstream)
    except DrillFailed as failure:
        findings = Findings(unmet=[f"it could not go on: {failure}"])
    except Exception as error:  # noqa: BLE001 -- the edge of a drill: the others go on, this one has failed
        traceback.print_exc()
        findings = Findings(unmet=[f"it crashed: {type(error).__name__}: {error}"])
    findings.figures["drill_seconds"] = round(time.monotonic() - started, 1)
    for what in findings.unmet:
        say(letter, f"NOT MET: {what}")
    say(letter, json.dumps(findings.figures))
    return findings


# Several at once: drills wait for claims and windows most of the time.


def _run_in_lanes(options: argparse.Namespace, folder: Path) -> dict[str, Findings]:
    """Run each drill in a process of its own, a few at a time."""
    found: dict[str, Findings] = {}
    waiting, running = list(options.only), dict[str, Child]()
    with Children(folder) as children:
        try:
            while waiting or running:
                while waiting and len(running) < LANES:
                    letter = waiting.pop(0)
                    running[letter] = children.start(letter, _alone(options, letter, folder))
                time.sleep(LANE_POLL_SECONDS)
                for letter in [name for name, lane in running.items() if not lane.is_alive]:
                    found[letter] = _read_lane(letter, running.pop(letter))
        finally:
            # Each drill that is left ends its own processes.
            for lane in running.values():
                lane.process.terminate()
            for lane in running.values():
                lane.process.wait(STOP_SECONDS_MAX)
    return {letter: found[letter] for letter in options.only}


def _alone(options: argparse.Namespace, letter: str, folder: Path) -> list[str]:
    arguments = ["--quick", "--seed", str(options.seed), "--only", letter]
    if options.no_mount:
        arguments.append("--no-mount")
    return [__file__, *arguments, "--keep", str(folder / letter)]


def _read_lane(letter: str, lane: Child) -> Findings:
    """Show what a drill said, and return what it found."""
    *said, last = lane.log.read_text(errors="replace").splitlines() or [""]
    for text in said:
        print(text, file=sys.stderr, flush=True)
    if not last.startswith(RESULT):
        return Findings(unmet=[f"it ended without a result: {last}"])
    result = json.loads(last.removeprefix(RESULT))
    return Findings(
        figures=result["drills"][letter],
        unmet=[what.removeprefix(f"{letter}: ") for what in result["expectations_not_met"]],
        lost=result["lines_lost"],
        duplicated=result["lines_duplicated"],
    )


def summary(found: Mapping[str, Findings]) -> dict[str, object]:
    """Return the result of all drills; those that did not run have nulls."""
    result: dict[str, object] = {
        "lines_lost": sum(findings.lost for findings in found.values()),
        "lines_duplicated": sum(findings.duplicated for findings in found.values()),
    }
    for letter, names in TOP.items():
        figures = found[letter].figures if letter in found else {}
        result |= {name: figures.get(name) for name in names}
    unmet = [f"{letter}: {what}" for letter, one in found.items() for what in one.unmet]
    drills = {letter: one.figures for letter, one in found.items()}
    return result | {"drills": drills, "expectations_not_met": unmet, "ok": not unmet}


if __name__ == "__main__":
    sys.exit(main())
