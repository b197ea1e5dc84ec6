"""The simulator's figures: streams, speed in virtual time, leaks, theory, caches, parity."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _simulator_streams import leaks, streamed
from _simulator_theory import cache_error, fleet_speed, is_deterministic, queue_against_theory

RECORDINGS = Path(__file__).parent.parent / "tests" / "data" / "parity"


def parity_failures() -> int:
    """Return the differences from recorded real servers that are not on the documented list."""
    failures = 0
    for recording in (RECORDINGS / "llamacpp.json", RECORDINGS / "vllm.json"):
        command = [sys.executable, "-m", "testkit.parity", "--replay", str(recording)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(said.stdout.splitlines()[-1].removeprefix("RESULT "))
        print(f"parity with {recording.stem}: {found}", flush=True)
        failures += found["parity_failures"]
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long streams are counted")
    parser.add_argument(
        "--simulated", type=float, default=300.0, help="seconds of the fleet's life"
    )
    parser.add_argument("--requests", type=int, default=100_000, help="requests against theory")
    options = parser.parse_args()
    figures: dict[str, float | bool] = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        print(f"{options.streams} streams ...", flush=True)
        figures |= streamed(folder, options.streams, options.seconds)
        print("1,000 clients that leave ...", flush=True)
        figures["slot_leaks_after_disconnects"] = leaks(folder, 1_000)
    print(f"{options.simulated:g} seconds of eight engines ...", flush=True)
    figures |= fleet_speed(options.simulated)
    wide = fleet_speed(options.simulated, block_size=32)
    figures["virtual_speedup_blocks_of_32"] = wide["virtual_speedup"]
    print(f"{options.requests} requests before one server ...", flush=True)
    figures["ttft_error_vs_mm1"] = round(queue_against_theory(options.requests), 4)
    figures["deterministic"] = is_deterministic()
    figures["prefix_hit_rate_error"] = cache_error()
    figures["parity_failures"] = parity_failures()
    print("RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
