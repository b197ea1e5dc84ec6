"""What there is to dispatch, and what came of it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_FRAME = '{"model":"m","max_tokens":143,"messages":[{"role":"user","content":""}]}'


@dataclass(frozen=True)
class Job:
    """Lines with bodies of one size, in a file; how many of them may be in flight at once."""

    folder: Path
    lines: int
    body_bytes: int
    concurrency: int

    @cached_property
    def path(self) -> Path:
        """The file of lines, written when first asked for; each prompt is one of a kind."""
        path = self.folder / f"input-{self.lines}-{self.body_bytes}.jsonl"
        if not path.exists():
            with path.open("wb") as out:
                for number in range(self.lines):
                    out.write(_line(number, self.body_bytes))
        return path

    @property
    def name(self) -> str:
        return f"{self.body_bytes / 1000:g} KB, {self.concurrency} at once"


def _line(number: int, body_bytes: int) -> bytes:
    text = f"{number:06d} ".ljust(body_bytes - len(_FRAME), "x")
    body = {"model": "m", "max_tokens": 143, "messages": [{"role": "user", "content": text}]}
    request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    line = {"custom_id": f"line-{number}", **request}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True)
class Cost:
    """What a contestant spent. CPU is that of its process, user and system, without the server."""

    requests: int
    cpu_us: float
    seconds: float

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_us / self.requests


@dataclass(frozen=True)
class OurCost(Cost):
    """Ours from the moment that the batch is planned to its end, and what came before.

    `job_seconds` is the time from create to `completed` as a user of the API sees it.
    """

    planning_cpu_us: float
    system_share: float
    job_seconds: float
    commits: int
    rss_mb: float
