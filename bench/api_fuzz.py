"""Random requests after the OpenAPI document against a real server, to find a broken promise."""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from testkit.fuzz.openapi import fuzz_api
from testkit.processes import serving, simulator

SECONDS_MAX = 3_600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="for each operation and kind")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with simulator(folder) as upstream, serving(folder, upstream) as served:
            done = fuzz_api(
                folder,
                served.url,
                seed=asked.seed,
                examples=asked.examples,
                seconds_max=SECONDS_MAX,
            )
    print(done.stdout)
    made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    result = {
        "requests_made": int(made[1]) if made else 0,
        "passed": int(made[2]) if made else 0,
        "seconds": round(time.monotonic() - begin, 1),
        "found_nothing": done.returncode == 0,
    }
    print(f"RESULT {json.dumps(result)}")
    return 0 if done.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
