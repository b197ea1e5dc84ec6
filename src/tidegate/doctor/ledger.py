"""How the ledger stands, and whether anybody works on what it holds."""

from collections.abc import AsyncIterator, Iterator

from tidegate.blobs.base import BlobHealth
from tidegate.config import Settings
from tidegate.doctor.finding import Finding, fail, ok, warn
from tidegate.domain.batch import LIVE
from tidegate.domain.errors import TidegateError
from tidegate.runtime.clock import Clock
from tidegate.stores.health import OldestBatch, StoreHealth
from tidegate.wiring.inspect import inspect_storage

AREA = "ledger"


async def examine_storage(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Look at ledger and blobs, beside the processes that work on them."""
    try:
        async for health in inspect_storage(settings, clock):
            if isinstance(health, StoreHealth):
                for finding in judge_ledger(health, clock.now()):
                    yield finding
            else:
                yield judge_blobs(health)
    except TidegateError as exc:
        yield fail(AREA, str(exc), "Fix this before `tidegate serve` is started.")


def judge_blobs(health: BlobHealth) -> Finding:
    """Judge where the bytes lie."""
    if not health.durable:
        return warn(
            "blobs",
            f"They are kept in {health.place}, and are gone when their process ends.",
            "Set blobs.kind to filesystem, unless this is a trial.",
        )
    return ok("blobs", f"They are kept in {health.place}.")


def judge_ledger(health: StoreHealth, now: float) -> Iterator[Finding]:
    """Judge how a ledger stands."""
    if not health.durable:
        yield warn(
            AREA,
            f"It is kept in {health.engine}, and is gone when its process ends.",
            "Set store.kind to sqlite, unless this is a trial.",
        )
        return
    if not health.exists:
        yield ok(AREA, "There is none yet; `tidegate serve` makes it.")
        return
    yield _schema(health)
    for remark in health.remarks:
        yield warn(AREA, remark.message, remark.advice)
    if health.schema > health.schema_known:
        return
    yield _processors(health)
    if health.oldest is not None:
        yield _oldest(health.oldest, health.overdue, now)


def _schema(health: StoreHealth) -> Finding:
    if health.schema > health.schema_known:
        return fail(
            AREA,
            f"It has schema {health.schema}; this Tidegate knows {health.schema_known} at most.",
            "Use the newer Tidegate that wrote it, or name another data_dir.",
        )
    if health.schema < 1:
        return fail(
            AREA,
            "It is an empty database, or somebody else's.",
            "Move it away, or name another data_dir.",
        )
    schema = f"schema {health.schema}"
    if health.schema < health.schema_known:
        schema += f", brought to {health.schema_known} at the next start"
    return ok(AREA, f"It opens ({health.engine}, {schema}).")


def _processors(health: StoreHealth) -> Finding:
    area = "batches"
    counts = ", ".join(f"{count} {status}" for status, count in health.batches.items()) or "none"
    live = sum(health.batches.get(status.value, 0) for status in LIVE)
    words = f"{counts}; {health.members} processors alive."
    if live and not health.members:
        return fail(
            area,
            words,
            "Start `tidegate serve` or `tidegate processor`: nobody works on what waits.",
        )
    return ok(area, words)


def _oldest(oldest: OldestBatch, overdue: int, now: float) -> Finding:
    area = "oldest batch"
    words = (
        f"{oldest.batch_id} is {oldest.status} for {max(0.0, now - oldest.created_at) / 60:.0f} "
        f"minutes, with {max(0.0, oldest.expires_at - now) / 60:.0f} left."
    )
    if overdue:
        return warn(
            area,
            f"{words} The window of {overdue} has closed though they have not ended.",
            "See that a processor is alive; it ends them within seconds.",
        )
    if oldest.waiting_for:
        return warn(
            area,
            f"{words} It waits: {oldest.waiting_for}",
            "Fix what it waits for; see the model servers below.",
        )
    return ok(area, words)
