"""One batch of 50,000 lines against a server that answers at once: seconds, CPU, memory."""

import argparse
import json
import tempfile
import time
from pathlib import Path

from _processes import request_line, servers
from openai import OpenAI

ENDED = {"completed", "failed", "expired", "cancelled"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--bytes", type=int, default=1_600, help="size of each prompt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        path = folder / "input.jsonl"
        with path.open("wb") as out:
            for number in range(options.lines):
                out.write(request_line(number, "m", f"{number} " + "x" * options.bytes))
        size = path.stat().st_size
        with servers(folder, {"m": []}, []) as running:
            client = OpenAI(base_url=running.base_url, api_key="none", max_retries=0)
            idle_mb = running.tidegate.rss_mb_max
            started = time.monotonic()
            file = client.files.create(file=path, purpose="batch")
            uploaded = time.monotonic()
            cpu = running.tidegate.cpu_seconds()
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            while batch.status not in ENDED:
                time.sleep(0.05)
                batch = client.batches.retrieve(batch.id)
            ended = time.monotonic()
            cpu = running.tidegate.cpu_seconds() - cpu
            assert batch.request_counts is not None
            names = set()
            if batch.output_file_id:
                for line in client.files.content(batch.output_file_id).iter_lines():
                    names.add(json.loads(line)["custom_id"])
        print(f"uploaded {size / 1e6:.0f} MB in {uploaded - started:.2f} s")
        figures = {
            "lines": options.lines,
            "completed": batch.request_counts.completed,
            "failed": batch.request_counts.failed,
            "custom_ids_in_output": len(names),
            "seconds_from_create": round(ended - uploaded, 2),
            "lines_per_second": round(options.lines / (ended - uploaded)),
            "cpu_us_per_line": round(cpu / options.lines * 1e6, 1),
            "rss_mb_idle": round(idle_mb),
            "rss_mb_max": round(running.tidegate.rss_mb_max),
        }
    print("RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
