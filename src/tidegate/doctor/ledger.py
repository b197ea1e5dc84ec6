"""How the ledger stands, and whether anybody works on what it holds."""

from collections.abc import Iterator

from tidegate.config import Settings, StoreKind
from tidegate.doctor.finding import Finding, fail, ok, warn
from tidegate.domain.batch import LIVE
from tidegate.domain.errors import TidegateError
from tidegate.runtime.clock import Clock
from tidegate.stores.health import LedgerHealth, Waiting
from tidegate.wiring.looking import look_at_ledger

AREA = "ledger"


def examine_ledger(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Look at the ledger, beside whoever works on it."""
    if settings.store.kind is StoreKind.MEMORY:
        yield warn(
            AREA,
            "It is kept in memory, and is gone when its process ends.",
            "Set store.kind to sqlite, unless this is a trial.",
        )
        return
    try:
        health = look_at_ledger(settings, clock)
    except TidegateError as exc:
        yield fail(AREA, str(exc), "Mend that before `tidegate serve` is started.")
        return
    if health is None:
        yield ok(AREA, "There is none yet; `tidegate serve` makes it.")
        return
    yield from judge_ledger(health, clock.now())


def judge_ledger(health: LedgerHealth, now: float) -> Iterator[Finding]:
    """Judge how a ledger stands."""
    yield _schema(health)
    if health.journal != "wal":
        yield warn(
            AREA,
            f"Its journal is '{health.journal}', not 'wal'.",
            "Start `tidegate serve` once, which sets it; use no other program on this file.",
        )
    if health.schema > health.schema_known:
        return
    yield _processors(health)
    if health.oldest is not None:
        yield _oldest(health.oldest, health.overdue, now)


def _schema(health: LedgerHealth) -> Finding:
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
    return ok(AREA, f"It opens ({health.engine}, journal {health.journal}, {schema}).")


def _processors(health: LedgerHealth) -> Finding:
    area = "batches"
    counts = ", ".join(f"{count} {status}" for status, count in health.batches.items()) or "none"
    live = sum(health.batches.get(status.value, 0) for status in LIVE)
    words = f"{counts}; {health.processors} processors alive."
    if live and not health.processors:
        return fail(
            area,
            words,
            "Start `tidegate serve` or `tidegate processor`: nobody works on what waits.",
        )
    return ok(area, words)


def _oldest(oldest: Waiting, overdue: int, now: float) -> Finding:
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
            "Mend what it waits for; see the model servers below.",
        )
    return ok(area, words)
