"""Follow batches until they have ended: their state, their rate, and the time left."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from tidegate.client.batches import get_batch, list_batches
from tidegate.client.errors import ServerUnreachable
from tidegate.client.objects import BatchObject, decode
from tidegate.client.server import ApiClient

WATCHED_MAX = 100
RATE_SECONDS = 30.0  # The period over which the rate is measured.
UNANSWERED_MAX = 10  # Requests in a row without an answer before the watch ends.
POLL_SECONDS_MIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """One batch at one moment. `rate` is in lines a second; None is not known."""

    batch: BatchObject
    raw: bytes
    rate: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """All watched batches at one moment, in the order in which they were first seen.

    `no_answer` is why the last request got no answer; `batches` is then that of the state before.
    """

    batches: Sequence[BatchProgress]
    no_answer: str | None = None


class RateTracker:
    """Measures the rate of a batch from the counts of the last `RATE_SECONDS`."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, batch: BatchObject, raw: bytes, now: float) -> BatchProgress:
        """Add the state of a batch at `now`, in seconds of any monotonic clock."""
        counts = batch.counts
        ended = counts.completed + counts.failed
        self._seen.append((now, ended))
        # One count at or before the beginning of the period is kept, to measure from.
        while len(self._seen) > 1 and self._seen[1][0] <= now - RATE_SECONDS:
            self._seen.popleft()
        rate = None if batch.is_terminal else self._rate()
        left = max(0, counts.total - ended)
        seconds = left / rate if rate and counts.total else None
        return BatchProgress(batch=batch, raw=raw, rate=rate, seconds_left=seconds)

    def _rate(self) -> float | None:
        (begun, first), (now, last) = self._seen[0], self._seen[-1]
        if now <= begun or last < first:
            return None
        return (last - first) / (now - begun)


class Watch:
    """Polls batches.

    Args:
        server: the server to ask.
        batch_ids: which; none means every live batch, and those that are created meanwhile.
        every_seconds: the time between two requests.
    """

    def __init__(
        self, server: ApiClient, batch_ids: Sequence[str], *, every_seconds: float
    ) -> None:
        self._server = server
        self._asked = tuple(dict.fromkeys(batch_ids))
        self._every_seconds = max(POLL_SECONDS_MIN, every_seconds)
        self._trackers: dict[str, RateTracker] = {}
        self._found: dict[str, BatchProgress] = {}

    async def until_all_end(self, on_change: Callable[[WatchState], None]) -> Sequence[BatchObject]:
        """Report each state, and return the batches once all have ended.

        Raises:
            ServerUnreachable: `UNANSWERED_MAX` requests in a row got no answer.
            UnexpectedResponse, ServerRefused: as `ApiClient.request`.
        """
        unanswered = 0
        while True:
            try:
                await self._poll()
            except ServerUnreachable as exc:
                unanswered += 1
                # The first request must be answered: report a wrong address immediately.
                if unanswered >= UNANSWERED_MAX or not self._found:
                    raise
                on_change(WatchState(batches=tuple(self._found.values()), no_answer=str(exc)))
            else:
                unanswered = 0
                on_change(WatchState(batches=tuple(self._found.values())))
                if all(item.batch.is_terminal for item in self._found.values()):
                    return [item.batch for item in self._found.values()]
            await asyncio.sleep(self._every_seconds)

    async def _poll(self) -> None:
        news = {} if self._asked else await self._listed()
        wanted = self._asked or tuple(news | self._found)
        for batch_id in wanted:
            known = self._found.get(batch_id)
            if known is not None and known.batch.is_terminal:
                continue
            raw = news.get(batch_id) or await get_batch(self._server, batch_id)
            self._note(raw)

    async def _listed(self) -> dict[str, bytes]:
        """Return the newest batches that are or were seen live, by id, oldest first."""
        items: list[msgspec.Raw] = [
            item async for item in list_batches(self._server, limit=WATCHED_MAX)
        ]
        found: dict[str, bytes] = {}
        for item in reversed(items):
            batch = decode(item, BatchObject)
            if batch.id in self._found or not batch.is_terminal:
                found[batch.id] = bytes(item)
        return found

    def _note(self, raw: bytes) -> None:
        batch = decode(raw, BatchObject)
        tracker = self._trackers.setdefault(batch.id, RateTracker())
        now = asyncio.get_running_loop().time()
        self._found[batch.id] = tracker.update(batch, raw, now)
