"""A user of the drills, who talks HTTP and trusts nothing: every result line is counted."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

ENDED = {"completed", "failed", "expired", "cancelled"}


@dataclass(frozen=True)
class Batch:
    """What the API says of a batch."""

    id: str
    status: str
    total: int
    completed: int
    failed: int
    output_file_id: str | None
    error_file_id: str | None
    metadata: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


def _batch(reply_json: Mapping[str, object]) -> Batch:
    counts, metadata = reply_json["request_counts"], reply_json["metadata"] or {}
    assert isinstance(counts, dict)
    assert isinstance(metadata, dict)
    output, errors = reply_json["output_file_id"], reply_json["error_file_id"]
    return Batch(
        id=str(reply_json["id"]),
        status=str(reply_json["status"]),
        total=int(counts["total"]),
        completed=int(counts["completed"]),
        failed=int(counts["failed"]),
        output_file_id=None if output is None else str(output),
        error_file_id=None if errors is None else str(errors),
        metadata=metadata,
    )


class User:
    """One user of one API. May be used by one thread at a time."""

    def __init__(self, url: str, *, timeout: float = 60.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout)

    def close(self) -> None:
        self._http.close()

    def upload(self, data: bytes, name: str = "input.jsonl") -> str:
        """Upload a batch input; return its id once that was acknowledged."""
        reply = self._http.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": (name, data)}
        )
        return str(_told(reply)["id"])

    def create(
        self,
        file_id: str,
        *,
        window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Batch:
        body = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": window,
            "metadata": metadata,
        }
        headers = {} if key is None else {"idempotency-key": key}
        return _batch(_told(self._http.post("/v1/batches", json=body, headers=headers)))

    def submit(self, lines: Sequence[bytes]) -> Batch:
        return self.create(self.upload(b"".join(lines)))

    def get(self, batch_id: str) -> Batch:
        return _batch(_told(self._http.get(f"/v1/batches/{batch_id}")))

    def cancel(self, batch_id: str) -> Batch | None:
        """Cancel; None where it was too late for that."""
        reply = self._http.post(f"/v1/batches/{batch_id}/cancel")
        return None if reply.status_code == httpx.codes.CONFLICT else _batch(_told(reply))

    def delete(self, file_id: str) -> int:
        """Delete a file; return the status of the reply."""
        return self._http.delete(f"/v1/files/{file_id}").status_code

    def content(self, file_id: str) -> bytes:
        return self._http.get(f"/v1/files/{file_id}/content").raise_for_status().content

    def fetch(self, file_id: str, asked: str | None = None) -> tuple[int, bytes]:
        """Return status and bytes of a download, of the range that is asked for."""
        headers = {} if asked is None else {"range": asked}
        reply = self._http.get(f"/v1/files/{file_id}/content", headers=headers)
        return reply.status_code, reply.content

    def files(self) -> dict[str, tuple[str, int]]:
        """Return filename and size of every file that is listed, by its id."""
        return {
            str(item["id"]): (str(item["filename"]), int(str(item["bytes"])))
            for item in self._pages("/v1/files", 1_000)
        }

    def batches(self) -> list[Batch]:
        return [_batch(item) for item in self._pages("/v1/batches", 100)]

    def _pages(self, path: str, limit: int) -> list[Mapping[str, object]]:
        items: list[Mapping[str, object]] = []
        after: str | None = None
        while True:
            params: dict[str, str | int] = {"limit": limit}
            if after is not None:
                params["after"] = after
            page = _told(self._http.get(path, params=params))
            data = page["data"]
            assert isinstance(data, list)
            items += data
            if not page["has_more"]:
                return items
            after = str(items[-1]["id"])


def _told(reply: httpx.Response) -> Mapping[str, object]:
    reply_json = reply.raise_for_status().json()
    assert isinstance(reply_json, dict)
    return reply_json


# Lines


def line(name: str, **extra: object) -> bytes:
    """Return an input line whose request says in its body who it is."""
    body = {"model": "m", "user": name, "messages": [{"role": "user", "content": name}], **extra}
    request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps({"custom_id": name, **request}).encode() + b"\n"


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


# Reading results


@dataclass
class Reading:
    """What a batch's files hold, against what was asked."""

    lost: int = 0
    duplicated: int = 0
    failed: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def read_results(user: User, batch: Batch, names: Iterable[str]) -> Reading:
    """Download both files of an ended batch and compare them with its input, line by line."""
    expected = set(names)
    seen: Counter[str] = Counter()
    reading = Reading()
    kinds: Counter[str] = Counter()
    for kind, file_id in (("output", batch.output_file_id), ("error", batch.error_file_id)):
        data = b"" if file_id is None else user.content(file_id)
        if data and not data.endswith(b"\n"):
            reading.problems.append(f"{batch.id}: the {kind} file does not end with a whole line")
        for raw in data.splitlines():
            name = _read_line(raw, kind, reading)
            seen[name] += 1
            kinds[kind] += 1
    reading.lost = len(expected - seen.keys())
    reading.duplicated = sum(count - 1 for count in seen.values())
    reading.failed = kinds["error"]
    unknown_lines = len(seen.keys() - expected)
    counts = (batch.total, batch.completed, batch.failed)
    if unknown_lines:
        reading.problems.append(f"{batch.id}: {unknown_lines} lines that nobody asked for")
    if counts != (len(expected), kinds["output"], kinds["error"]):
        reading.problems.append(
            f"{batch.id} ({batch.status}): counts {counts} against {len(expected)} lines of input, "
            f"{kinds['output']} of output, {kinds['error']} of errors"
        )
    return reading


def _read_line(raw: bytes, kind: str, reading: Reading) -> str:
    """Return whose line it is; note where the reply is not its own."""
    reply_json = json.loads(raw)
    name = str(reply_json["custom_id"])
    error, response = reply_json["error"], reply_json["response"]
    if error is not None:
        reading.codes[str(error["code"])] += 1
    if kind == "output" and response["body"]["choices"][0]["message"]["content"] != name:
        reading.problems.append(f"{name} has the reply of another line")
    return name
