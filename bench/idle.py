"""Ledger calls of an idle processor: how many a second a real `tidegate processor` makes."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 30.0
WARM_UP_SECONDS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it is watched")
    options = parser.parse_args()
    child = Path(__file__).with_name("_idle_processor.py")
    with tempfile.TemporaryDirectory(prefix="tidegate-idle-") as folder:
        done = subprocess.run(
            [sys.executable, str(child), folder, str(WARM_UP_SECONDS), str(options.seconds)],
            capture_output=True,
            text=True,
            check=False,
            timeout=options.seconds + 60,
        )
    if done.returncode != 0:
        raise SystemExit(f"The processor could not be watched: {done.stderr[-500:]}")
    calls: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    total = sum(calls.values())
    figures = {
        "ledger_calls_per_second": round(total / options.seconds, 2),
        "ledger_writes_per_second": round(calls.get("renew_membership", 0) / options.seconds, 2),
        "runs": calls,
    }
    print("RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
