"""Rows of the SQLite ledger, decoded into domain values, and values as the columns they fill."""

from collections.abc import Mapping
from dataclasses import fields
from typing import LiteralString, NamedTuple, TypeVar

import apsw
import msgspec

from tidegate.domain.batch import TERMINAL, Batch, Counts, Problem, Status
from tidegate.domain.claim import Claim, Unit
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.shard import Shard, ShardPlan
from tidegate.domain.usage import Usage

Row = TypeVar("Row", bound=msgspec.Struct)
Value = str | int | float | bytes | None
Values = Mapping[str, Value]

TERMINAL_JSON = msgspec.json.encode(sorted(TERMINAL)).decode()
_PROBLEMS = msgspec.json.Decoder(tuple[Problem, ...])
_MODELS = msgspec.json.Decoder(tuple[str, ...])
_DEATHS = msgspec.json.Decoder(dict[int, int])
_NO_DEATHS = "{}"
_METADATA = msgspec.json.Decoder(dict[str, str])


class Moment(NamedTuple):
    """A transaction and the ledger's time in it."""

    connection: apsw.Connection
    now: float


def write(connection: apsw.Connection, sql: LiteralString, values: Values) -> int:
    """Run a statement that returns no rows; return how many rows it changed."""
    connection.execute(sql, values).fetchall()
    return connection.changes()


def select(
    connection: apsw.Connection, sql: LiteralString, values: Values, kind: type[Row]
) -> list[Row]:
    """Return all rows of a query, each checked and decoded as `kind`."""
    rows = connection.execute(sql, values).fetchall()
    return [msgspec.convert(row, kind, builtin_types=(bytes,)) for row in rows]


def select_one(
    connection: apsw.Connection, sql: LiteralString, values: Values, kind: type[Row]
) -> Row | None:
    """Return the only row of a query, or None."""
    rows = select(connection, sql, values, kind)
    assert len(rows) <= 1, "more than one row"
    return rows[0] if rows else None


class NameRow(msgspec.Struct, frozen=True, array_like=True):
    """One name."""

    name: str


class CountRow(msgspec.Struct, frozen=True, array_like=True):
    """One number."""

    count: int


class FlagRow(msgspec.Struct, frozen=True, array_like=True):
    """One 0 or 1."""

    flag: int


class BatchRow(msgspec.Struct, frozen=True, array_like=True):
    """The columns of `batch`, in the order of the table."""

    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: float
    expires_at: float
    version: int
    metadata: str | None
    output_expires_seconds: int | None
    in_progress_at: float | None
    finalizing_at: float | None
    completed_at: float | None
    failed_at: float | None
    expired_at: float | None
    cancelling_at: float | None
    cancelled_at: float | None
    total: int
    completed: int
    failed: int
    expired: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    problems: str
    models: str
    plan_blob: str | None
    output_file_id: str | None
    error_file_id: str | None
    output_bytes: int
    error_bytes: int
    waiting_for: str | None
    idempotency_key: str | None
    request_digest: str | None
    holds_input: int
    open_shards: int

    def batch(self) -> Batch:
        """Return the row as a batch."""
        return Batch(
            id=self.id,
            tenant=self.tenant,
            endpoint=self.endpoint,
            input_file_id=self.input_file_id,
            completion_window=self.completion_window,
            status=Status(self.status),
            created_at=self.created_at,
            expires_at=self.expires_at,
            version=self.version,
            metadata=None if self.metadata is None else _METADATA.decode(self.metadata),
            output_expires_seconds=self.output_expires_seconds,
            in_progress_at=self.in_progress_at,
            finalizing_at=self.finalizing_at,
            completed_at=self.completed_at,
            failed_at=self.failed_at,
            expired_at=self.expired_at,
            cancelling_at=self.cancelling_at,
            cancelled_at=self.cancelled_at,
            counts=Counts(
                total=self.total, completed=self.completed, failed=self.failed, expired=self.expired
            ),
            usage=Usage(
                input_tokens=self.input_tokens,
                cached_tokens=self.cached_tokens,
                output_tokens=self.output_tokens,
                reasoning_tokens=self.reasoning_tokens,
            ),
            problems=_PROBLEMS.decode(self.problems),
            models=_MODELS.decode(self.models),
            plan_blob=self.plan_blob,
            output_file_id=self.output_file_id,
            error_file_id=self.error_file_id,
            output_bytes=self.output_bytes,
            error_bytes=self.error_bytes,
            waiting_for=self.waiting_for,
            idempotency_key=self.idempotency_key,
            request_digest=self.request_digest,
        )


_PLAIN = [name for name in BatchRow.__struct_fields__ if name in {f.name for f in fields(Batch)}]
_JSON = frozenset({"metadata", "problems", "models"})
# Written when a batch is created, or once by the end of its planning.
_SETTLED = _JSON | {
    *("tenant", "endpoint", "input_file_id", "completion_window", "created_at", "expires_at"),
    *("output_expires_seconds", "idempotency_key", "request_digest"),
    *("plan_blob", "output_file_id", "error_file_id"),
}
_MOVING = [name for name in _PLAIN if name not in _SETTLED]
_STILL = [name for name in _PLAIN if name in _SETTLED - _JSON]


def progress_values(batch: Batch) -> dict[str, Value]:
    """Return the columns that name a batch and hold what changes while it runs."""
    values: dict[str, Value] = {name: getattr(batch, name) for name in _MOVING}
    counts, usage = batch.counts, batch.usage
    values |= {field.name: getattr(counts, field.name) for field in fields(counts)}
    values |= {name: getattr(usage, name) for name in usage.__struct_fields__}
    return values


def batch_values(batch: Batch) -> dict[str, Value]:
    """Return the columns that hold a batch."""
    values = progress_values(batch)
    values |= {name: getattr(batch, name) for name in _STILL}
    metadata = batch.metadata
    values["metadata"] = None if metadata is None else _json(metadata)
    values["problems"] = _json(batch.problems)
    values["models"] = _json(batch.models)
    return values


class FileRow(msgspec.Struct, frozen=True, array_like=True):
    """The columns of `file`, in the order of the table."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float | None
    batch_id: str | None
    growing: int
    deleted: int
    released: int

    def file(self) -> File:
        """Return the row as a file."""
        return File(
            id=self.id,
            tenant=self.tenant,
            filename=self.filename,
            purpose=Purpose(self.purpose),
            bytes=self.bytes,
            created_at=self.created_at,
            expires_at=self.expires_at,
            batch_id=self.batch_id,
            growing=bool(self.growing),
        )


def file_values(file: File) -> dict[str, Value]:
    """Return the columns that hold a file, but for `deleted` and `released`."""
    return {field.name: getattr(file, field.name) for field in fields(file)}


class PartRow(msgspec.Struct, frozen=True, array_like=True):
    """A slice of a file and its place."""

    seq: int
    blob: str
    offset: int
    length: int

    def part(self) -> Part:
        """Return the row as a part."""
        return Part(blob=self.blob, offset=self.offset, length=self.length)


class HoldRow(msgspec.Struct, frozen=True, array_like=True):
    """The claim columns of `unit`."""

    owner: str | None
    epoch: int
    expires_at: float
    not_before: float | None
    ended: int
    crashes: int

    def hold(self) -> Hold:
        """Return the row as a hold."""
        return Hold(
            owner=self.owner,
            epoch=self.epoch,
            expires_at=self.expires_at,
            not_before=self.not_before,
            ended=bool(self.ended),
            crashes=self.crashes,
        )


class ShardRow(msgspec.Struct, frozen=True, array_like=True):
    """The columns of `shard` with the epoch, the end and the crashes of its unit."""

    batch_id: str
    number: int
    model: str
    offset: int
    length: int
    lines: int
    done: bytes
    sequence: int
    last_segment: str | None
    epoch: int
    ended: int
    crashes: int
    suspect: int | None
    deaths: str

    def shard(self) -> Shard:
        """Return the row as a shard."""
        return Shard(
            batch_id=self.batch_id,
            plan=ShardPlan(
                number=self.number,
                model=self.model,
                offset=self.offset,
                length=self.length,
                lines=self.lines,
            ),
            done=self.done,
            epoch=self.epoch,
            sequence=self.sequence,
            last_segment=self.last_segment,
            ended=bool(self.ended),
            crashes=self.crashes,
            suspect=self.suspect,
            deaths={} if self.deaths == _NO_DEATHS else _DEATHS.decode(self.deaths),
        )


def unit_values(unit: Unit) -> dict[str, Value]:
    """Return the columns that name a unit."""
    return {"batch_id": unit.batch_id, "kind": unit.kind, "number": unit.number}


def claim_values(claim: Claim) -> dict[str, Value]:
    """Return the columns that must be equal for a claim to be kept."""
    return {**unit_values(claim.unit), "owner": claim.owner, "epoch": claim.epoch}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
