"""`tidegate run` killed ten times by SIGKILL and started again; its memory on 50,000 lines."""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _processes import child, free_port, request_line

from testkit.scenarios.killed_runs import committed
from testkit.servers.counting import CountingModel, request
from testkit.servers.handler import HandlerServer

LIFE_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class Kill:
    """What was known right after one kill."""

    finished: frozenset[str]
    asked: dict[str, int]
    in_flight: int
    uncommitted: int


async def start(folder: Path, url: str, *extra: str) -> asyncio.subprocess.Process:
    command = ["-m", "tidegate", "run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")]
    where = ["--upstream", url, "--json", "--order", "input"]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        *where,
        *extra,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def kill_often(
    folder: Path, lines: int, kills: int, chance: random.Random
) -> dict[str, object]:
    model = CountingModel(lambda: chance.uniform(0.005, 0.05))
    (folder / "in.jsonl").write_text("".join(request(f"t{n}") + "\n" for n in range(lines)))
    seen: list[Kill] = []
    async with HandlerServer(model.answer) as server:
        # Random moments of each life: of some the reading, planning or writing is hit.
        for number in range(kills):
            process = await start(folder, server.url)
            if chance.random() < 0.8:
                share = (lines - model.requests) / (kills - number + 1)
                wanted = model.requests + round(chance.uniform(0.05, 1.0) * max(share, 1))
                async with asyncio.timeout(LIFE_SECONDS_MAX):
                    await model.wait_for(wanted)
            await asyncio.sleep(chance.uniform(0.0, 0.6))
            process.kill()
            _, said = await process.communicate()
            assert process.returncode == -signal.SIGKILL, (process.returncode, said.decode())
            in_flight = model.in_flight
            await server.wait_until_left()
            finished = await committed(folder / "out.jsonl.tidegate")
            lost = sum(
                count - (seen[-1].asked.get(text, 0) if seen else 0)
                for text, count in model.asked.items()
                if text not in finished
            )
            seen.append(Kill(finished, dict(model.asked), in_flight, lost - in_flight))
        process = await start(folder, server.url)
        out, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        summary = json.loads(out)
    results = [
        json.loads(line)["custom_id"]
        for line in (folder / "out.jsonl").read_text().split("\n")
        if line
    ]
    again = sum(model.asked[text] != kill.asked[text] for kill in seen for text in kill.finished)
    lost_in_all = sum(kill.in_flight + kill.uncommitted for kill in seen)
    return {
        "lines": lines,
        "kills": kills,
        "completed": summary["completed"],
        "result_lines": len(results),
        "in_input_order": results == [f"t{number}" for number in range(lines)],
        "finished_at_each_kill": [len(kill.finished) for kill in seen],
        "finished_lines_sent_again": again,
        "requests": model.requests,
        "requests_repeated": model.requests - lines,
        "of_these_in_flight_at_a_kill": sum(kill.in_flight for kill in seen),
        "of_these_answered_but_uncommitted": sum(kill.uncommitted for kill in seen),
        "repeats_explained": lost_in_all == model.requests - lines,
        "uncommitted_max": max(kill.uncommitted for kill in seen),
        "in_flight_max": max(kill.in_flight for kill in seen),
        "state_left": (folder / "out.jsonl.tidegate").exists(),
    }


def measure(folder: Path, lines: int, size: int) -> dict[str, float]:
    """Return seconds and peak memory of a run over this many lines, in the order of the input."""
    folder.mkdir()
    path = folder / "in.jsonl"
    with path.open("wb") as out:
        for number in range(lines):
            out.write(request_line(number, "m", f"{number} " + "x" * size))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with child(
        ["simulate", "--port", str(port), "--model", "m"], f"{url}/health", folder / "sim.log"
    ):
        started = time.monotonic()
        command = ["-m", "tidegate", "run", str(path), "-o", str(folder / "out.jsonl")]
        where = ["--upstream", url, "--quiet", "--order", "input"]
        pid = os.posix_spawn(sys.executable, [sys.executable, *command, *where], os.environ)
        _, status, usage = os.wait4(pid, 0)
        seconds = time.monotonic() - started
    assert status == 0, status
    with (folder / "out.jsonl").open() as results:
        for number, line in enumerate(results):
            assert f'"custom_id":"line-{number}"' in line[:200], number
    return {
        "lines": lines,
        "input_mb": round(path.stat().st_size / 1e6, 1),
        "seconds": round(seconds, 1),
        "rss_mb_max": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=5_000, help="lines of the drill")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--measured-lines", type=int, default=50_000, help="0 leaves memory out")
    parser.add_argument("--bytes", type=int, default=3_850, help="size of each measured prompt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        chance = random.Random(options.seed)
        figures = asyncio.run(kill_often(folder, options.lines, options.kills, chance))
        print(json.dumps(figures, indent=2))
        if options.measured_lines:
            small = measure(folder / "small", options.measured_lines // 10, options.bytes)
            large = measure(folder / "large", options.measured_lines, options.bytes)
            figures |= {"memory": [small, large]}
    print("RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
