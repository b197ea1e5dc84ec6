"""A slow model beside a fast one, and a small batch behind a large one: who waits for whom."""

import json
import tempfile
import time
from pathlib import Path

from _processes import request_line, servers
from openai import OpenAI
from openai.types import Batch

ENDED = {"completed", "failed", "expired", "cancelled"}


class User:
    """Submits batches and watches them."""

    def __init__(self, base_url: str, folder: Path) -> None:
        self._client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
        self._folder = folder

    def submit(self, lines: list[bytes]) -> Batch:
        path = self._folder / "input.jsonl"
        path.write_bytes(b"".join(lines))
        file = self._client.files.create(file=path, purpose="batch")
        return self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    def get(self, batch: Batch) -> Batch:
        return self._client.batches.retrieve(batch.id)

    def wait(self, batch: Batch) -> Batch:
        while batch.status not in ENDED:
            time.sleep(0.02)
            batch = self.get(batch)
        return batch

    def seconds(self, lines: list[bytes]) -> float:
        started = time.monotonic()
        self.wait(self.submit(lines))
        return time.monotonic() - started

    def lines_done(self, batch: Batch, model: str) -> int:
        """Count the results of one model that can be read so far."""
        now = self.get(batch)
        if not now.output_file_id:
            return 0
        content = self._client.files.content(now.output_file_id).content
        return sum(f'"custom_id":"{model}-'.encode() in line for line in content.splitlines())

    def cancel(self, batch: Batch) -> None:
        self._client.batches.cancel(batch.id)
        self.wait(batch)


def of(model: str, count: int) -> list[bytes]:
    return [request_line(number, model, "hello", prefix=model) for number in range(count)]


def main() -> None:
    # Answers take 20 ms from the fast model and 1 s from the slow one.
    simulators = {"fast": ["--latency", "0.02"], "slow": ["--latency", "1.0"]}
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        with servers(folder, simulators, []) as running:
            user = User(running.base_url, folder)
            fast_alone = user.seconds(of("fast", 2_000))
            started = time.monotonic()
            both = user.submit(of("slow", 2_000) + of("fast", 2_000))
            while user.lines_done(both, "fast") < 2_000:
                time.sleep(0.05)
            fast_beside_slow = time.monotonic() - started
            slow_then = user.lines_done(both, "slow")
            user.cancel(both)
            small_alone = user.seconds(of("slow", 50))
            large = user.submit(of("slow", 20_000))
            while user.get(large).status != "in_progress":
                time.sleep(0.05)
            time.sleep(3.0)
            small_behind = user.seconds(of("slow", 50))
            large_done = user.get(large).request_counts
            assert large_done is not None
            assert large_done.completed < 20_000, (
                "the large batch was over too early for a measurement"
            )
            user.cancel(large)
    figures = {
        "fast_alone_seconds": round(fast_alone, 2),
        "fast_beside_slow_seconds": round(fast_beside_slow, 2),
        "slow_lines_done_by_then": slow_then,
        "small_alone_seconds": round(small_alone, 2),
        "small_behind_20000_seconds": round(small_behind, 2),
        "small_behind_allowed_seconds": round(2 * small_alone + 2, 2),
    }
    print("RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
