"""Many small batches, made by a few users at once who each wait for the end of one."""

import http.client
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _dispatch_job import Job
from _dispatch_ours import ENDED, Serving, serving
from _fast_upstream import FastUpstream

USERS = 4
CONCURRENCY = 256
LOOK_SECONDS = 0.01
BATCH_SECONDS_MAX = 60.0
_BOUNDARY = "0123456789abcdef"
_FORM = (
    f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    f"--{_BOUNDARY}\r\n"
    'content-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
)


@dataclass(frozen=True)
class Batches:
    """What they took. CPU is that of our process, uploads and looks at batches included."""

    seconds_each: Sequence[float]
    seconds: float
    cpu_seconds: float
    looks: int

    @property
    def batches_per_second(self) -> float:
        return len(self.seconds_each) / self.seconds

    @property
    def cpu_ms_per_batch(self) -> float:
        return 1_000 * self.cpu_seconds / len(self.seconds_each)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.seconds_each)
        return 1_000 * ordered[math.ceil(share * len(ordered)) - 1]


@dataclass
class User:
    """One connection: uploads, creates, and looks again and again until the batch has ended."""

    host: str
    port: int
    seconds_each: list[float] = field(default_factory=list)
    looks: int = 0
    broken: BaseException | None = None

    def run(self, data: bytes, lines: int, batches: int) -> None:
        """Run this many batches; keep an error for the caller that waits for this user."""
        try:
            self._api = http.client.HTTPConnection(self.host, self.port, timeout=BATCH_SECONDS_MAX)
            for _ in range(batches):
                self.seconds_each.append(self._one(data, lines))
            self._api.close()
        except BaseException as error:  # noqa: BLE001 -- raised again on the thread that waits
            self.broken = error

    def _one(self, data: bytes, lines: int) -> float:
        form = _FORM.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        file = self._ask("POST", "/v1/files", form, kind)
        order = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions"}
        body = json.dumps(order | {"completion_window": "24h"}).encode()
        begun = time.monotonic()
        batch = self._ask("POST", "/v1/batches", body, "application/json")
        while batch["status"] not in ENDED:
            if time.monotonic() > begun + BATCH_SECONDS_MAX:
                raise SystemExit(f"A batch did not end in {BATCH_SECONDS_MAX:.0f} s: {batch}")
            time.sleep(LOOK_SECONDS)
            batch = self._ask("GET", f"/v1/batches/{batch['id']}")
            self.looks += 1
        seconds = time.monotonic() - begun
        if batch["request_counts"] != {"total": lines, "completed": lines, "failed": 0}:
            raise SystemExit(f"The batch did not complete: {batch}")
        return seconds

    def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str | None = None
    ) -> Mapping[str, object]:
        headers = {} if kind is None else {"content-type": kind}
        self._api.request(method, path, body, headers)
        reply = self._api.getresponse()
        content = reply.read()
        if reply.status != http.client.OK:
            raise SystemExit(f"{path} answered {reply.status}: {content.decode()}")
        fields = json.loads(content)
        assert isinstance(fields, dict)
        return fields


def run_batches(
    folder: Path, upstream: FastUpstream, batches: int, lines: int, core: int | None
) -> Batches:
    """Run this many batches of this many lines, each with its own file."""
    data = Job(folder, lines, 2_000, CONCURRENCY).path.read_bytes()
    with serving(folder / "batches", upstream, CONCURRENCY, core) as server:
        asked = upstream.requests()
        found = _all_users(server, data, lines, batches)
        if upstream.requests() - asked != batches * lines:
            raise SystemExit(f"{upstream.requests() - asked} requests: {batches} times {lines}?")
    return found


def _all_users(server: Serving, data: bytes, lines: int, batches: int) -> Batches:
    url = server.api.base_url
    users = [User(url.host, url.port or 80) for _ in range(USERS)]
    threads = [
        threading.Thread(target=user.run, args=(data, lines, batches // USERS)) for user in users
    ]
    begun, spent = time.monotonic(), server.cpu_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, spent = time.monotonic() - begun, server.cpu_seconds() - spent
    for user in users:
        if user.broken is not None:
            raise user.broken
    each = [one for user in users for one in user.seconds_each]
    return Batches(each, seconds, spent, sum(user.looks for user in users))
