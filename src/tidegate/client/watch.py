"""Follow batches until they have ended: what they are doing, how fast, and for how long still."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from tidegate.client.batches import get_batch, list_batches
from tidegate.client.errors import ServerUnreachable
from tidegate.client.objects import BatchObject, decode
from tidegate.client.server import Server

WATCHED_MAX = 100
RATE_SECONDS = 30.0  # Over how long the rate is taken.
UNANSWERED_MAX = 10  # Looks in a row without an answer, then the watch ends.
POLL_SECONDS_MIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """One batch at one state. `rate` is lines a second; what is not known is None."""

    batch: BatchObject
    raw: bytes
    rate: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """All watched batches at one moment, in the order in which they were met.

    `no_answer` says why the last question got no answer; the batches are then those of before.
    """

    batches: Sequence[BatchProgress]
    no_answer: str | None = None


class RateTracker:
    """Remembers how many lines had ended when, and so knows how fast it goes."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, batch: BatchObject, raw: bytes, now: float) -> BatchProgress:
        """Take a look of a batch at `now`, in seconds of any clock that never runs back."""
        counts = batch.counts
        ended = counts.completed + counts.failed
        self._seen.append((now, ended))
        # One look at or before the beginning of the span is kept, to measure from.
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
    """Looks at batches again and again.

    Args:
        server: whom to ask.
        batch_ids: which; none means every batch that lives, and those that come meanwhile.
        every_seconds: how long between two looks.
    """

    def __init__(self, server: Server, batch_ids: Sequence[str], *, every_seconds: float) -> None:
        self._server = server
        self._asked = tuple(dict.fromkeys(batch_ids))
        self._every_seconds = max(POLL_SECONDS_MIN, every_seconds)
        self._trackers: dict[str, RateTracker] = {}
        self._found: dict[str, BatchProgress] = {}

    async def until_all_end(self, on_change: Callable[[WatchState], None]) -> Sequence[BatchObject]:
        """Tell of each look, and return the batches once all have ended.

        Raises:
            ServerUnreachable: `UNANSWERED_MAX` looks in a row got no answer.
            UnexpectedResponse, ServerRefused: as `Server.request`.
        """
        unanswered = 0
        while True:
            try:
                await self._poll()
            except ServerUnreachable as exc:
                unanswered += 1
                # The first question must be answered: a wrong address should be told of at once.
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
        """Return the newest batches that live or were seen to live, by id, oldest first."""
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
