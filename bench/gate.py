"""CPU time of upload, planning and dispatch, as ratios to a fixed piece of work: the gate of CI."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from testkit.null_blobs import Drain
from testkit.scenarios.batch_run import BatchSetup, lines_of, run_batch, upload_cpu_ns
from testkit.yardstick import ROUNDS_MIN, turns, weigh
from tidegate.blobs.memory import MemoryBlobs
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, PendingCall, Receiver, Reply, Upstream

LINES = 1_000
# Turns of the yardstick for one line, and for one megabyte of an upload, as first recorded. Lower
# them when the path becomes cheaper. The margin covers other machines and other Pythons.
RECORDED = {"dispatch": 7.9, "planning": 4.3, "upload": 270.0}
MARGIN = 1.5
BOUNDS = {name: ratio * MARGIN for name, ratio in RECORDED.items()}
# What the self-test adds, as a part of the bound: alone it must exceed it.
ADDED = 1.2

Costs = Mapping[str, float]


@dataclass
class SlowUpstream(Upstream):
    """An upstream that takes this many turns of the yardstick more for each call."""

    inner: Upstream
    turns: int

    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        turns(self.turns)
        return self.inner.begin(call, receiver)

    async def send(self, call: Call) -> Reply:
        return await self.inner.send(call)

    async def aclose(self) -> None:
        await self.inner.aclose()


class SlowBlobs(MemoryBlobs):
    """Blobs that take this many turns more for each byte that is read."""

    def __init__(self, turns_a_byte: float) -> None:
        super().__init__(appends=True)
        self._turns_a_byte = turns_a_byte

    async def read(self, name: str, offset: int, length: int) -> bytes:
        data = await super().read(name, offset, length)
        turns(round(len(data) * self._turns_a_byte))
        return data


def lines_cost(make_setup: Callable[[], BatchSetup]) -> Callable[[], Costs]:
    lines = lines_of(LINES)
    return lambda: run_virtual(run_batch(lines, make_setup())).costs_ns


def upload_cost(make_blobs: Callable[[], Drain]) -> Callable[[], Costs]:
    data = b"".join(lines_of(LINES))
    return lambda: {"upload": run_virtual(upload_cpu_ns(data, make_blobs())) / len(data) * 1e6}


def measure(lines: Callable[[], Costs], upload: Callable[[], Costs], **rounds: int) -> Costs:
    by_line = {name: BOUNDS[name] for name in ("dispatch", "planning")}
    return weigh(lines, by_line, **rounds) | weigh(upload, {"upload": BOUNDS["upload"]}, **rounds)


def notices_more() -> bool:
    """Return whether each path is found too expensive when work is added to it."""
    slow = partial(SlowUpstream, turns=round(BOUNDS["dispatch"] * ADDED))
    blobs = partial(SlowBlobs, BOUNDS["planning"] * ADDED / len(lines_of(1)[0]))

    def think(piece: bytes) -> int:
        return turns(round(len(piece) * BOUNDS["upload"] * ADDED / 1e6))

    found = measure(
        lines_cost(partial(BatchSetup, wrap_upstream=slow, make_blobs=blobs)),
        upload_cost(partial(Drain, think)),
        rounds_max=ROUNDS_MIN,
    )
    return all(found[name] > bound for name, bound in BOUNDS.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--enforce", action="store_true", help="exit with 1 beyond a bound")
    options = parser.parse_args()
    found = measure(lines_cost(BatchSetup), upload_cost(Drain))
    figures: dict[str, float | bool] = {
        f"{name}_of_recorded": round(found[name] / ratio, 2) for name, ratio in RECORDED.items()
    }
    figures["margin"] = MARGIN
    figures["notices_more"] = notices_more()
    ok = figures["notices_more"] and all(found[name] <= BOUNDS[name] for name in BOUNDS)
    print("RESULT " + json.dumps(figures | {"ok": bool(ok)}))
    return int(options.enforce and not ok)


if __name__ == "__main__":
    sys.exit(main())
