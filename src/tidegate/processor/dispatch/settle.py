"""From what came back for a line to its result, to another try, and to what its endpoint learns."""

import asyncio
import random
from typing import Final

from tidegate.domain.errors import SandboxNotStarted, TimedOut, UpstreamFault
from tidegate.domain.retry import OK, AttemptOutcome, Retry
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.endpoints.classify import ClassifiedAttempt, classify
from tidegate.processor.dispatch.attempt import Attempt, Landing
from tidegate.processor.dispatch.open_batch import ResultLine
from tidegate.processor.dispatch.quarantine import Quarantine, SandboxDeath
from tidegate.upstreams.base import Reply

REFUSALS_OF_AN_ODD_ONE = 3

# Values rather than members: one of them is counted with each line.
_OK: Final = AttemptOutcome.OK.value
_CANCELLED: Final = AttemptOutcome.CANCELLED.value
_SANDBOX_DIED: Final = AttemptOutcome.SANDBOX_DIED.value


class AttemptSettler:
    """Settles attempts on open shards. Nothing here does I/O."""

    def __init__(self, retry: Retry, rng: random.Random, quarantine: Quarantine) -> None:
        self._retry = retry
        self._rng = rng
        self._quarantine = quarantine

    def settle(self, flight: Attempt, landing: Landing, now: float) -> str | None:
        """Give the line its result or another try; return the value of its `AttemptOutcome`.

        None if nothing was sent, because no sandbox could be started.
        """
        match landing:
            case Reply() | UpstreamFault():
                return self._settle_result(flight, landing, now)
            case None:
                flight.shard.put_back(flight.index)
                return _CANCELLED
            case SandboxNotStarted():
                self._back_off(flight)
                return None
            case SandboxDeath():
                self._on_sandbox_death(flight, landing)
                return _SANDBOX_DIED

    # In a sandbox

    def _on_sandbox_death(self, flight: Attempt, death: SandboxDeath) -> None:
        """Fail a line that killed often enough; else let it wait until all others have gone."""
        shard, index = flight.shard, flight.index
        if death.count >= DEATHS_TO_BLAME:
            self._quarantine.fail_poison_line(flight.run, shard, index)
            return
        delay = self._retry.delay(max(1, death.count), self._rng.random())
        shard.sleep_until(index, asyncio.get_running_loop().time() + delay)

    def _back_off(self, flight: Attempt) -> None:
        """Leave a shard alone for a while whose child process could not be started."""
        shard = flight.shard
        shard.put_back(flight.index)
        shard.starts_failed += 1
        delay = self._retry.delay(shard.starts_failed, self._rng.random())
        shard.rests_until = asyncio.get_running_loop().time() + delay

    # By reply or fault

    def _settle_result(self, flight: Attempt, result: Reply | UpstreamFault, now: float) -> str:
        endpoint, model = flight.endpoint, flight.shard.model
        found = classify(
            result,
            flight.request_id,
            flight.line.custom_id,
            endpoint=endpoint,
            model=model,
            sent_at=flight.sent_at,
            now=now,
        )
        if found.outcome is OK and isinstance(result, Reply):
            # By far the most: nothing of what follows would change anything.
            endpoint.on_served(model, now, len(result.body), flight.in_flight_at_send)
            self._finish(flight, found)
            return _OK
        is_odd_one = self._is_odd_one(flight, found, result, now)
        if not (is_odd_one and found.overload):
            self._tell_endpoint(flight, result, found, now)
        if self._is_final(flight, found, is_odd_one=is_odd_one):
            self._finish(flight, found)
        else:
            self._try_again(flight, found, now)
        return found.outcome.value

    def _finish(self, flight: Attempt, found: ClassifiedAttempt) -> None:
        run, shard = flight.run, flight.shard
        run.finished[shard.model] = run.finished.get(shard.model, 0) + 1
        run.add(ResultLine(shard, flight.index, found.line, found.usage, is_error=found.is_error))

    def _is_odd_one(
        self, flight: Attempt, found: ClassifiedAttempt, result: Reply | UpstreamFault, now: float
    ) -> bool:
        """Return whether the endpoint refuses this line again and again, while it serves others.

        Then the refusal says more of the line than of the endpoint: a content filter's 403, a
        proxy's 504 for one that takes too long, a quota that only this request would break.
        """
        if found.outcome is not AttemptOutcome.ENDPOINT_ERROR or not isinstance(result, Reply):
            return False
        shard, index = flight.shard, flight.index
        before = shard.refused_at.get(index)
        shard.refused_at[index] = flight.sent_at
        since = flight.endpoint.on_refused((shard.claim.unit, index), now)
        if before is None:
            return False
        served_others = flight.endpoint.served_at > before
        # Once it stood out, it still does while nobody else is refused.
        still_odd = index in shard.refusals and since < before
        if not served_others and not still_odd:
            return False
        shard.refusals[index] = shard.refusals.get(index, 0) + 1
        return shard.refusals[index] >= REFUSALS_OF_AN_ODD_ONE

    def _tell_endpoint(
        self, flight: Attempt, result: Reply | UpstreamFault, found: ClassifiedAttempt, now: float
    ) -> None:
        endpoint = flight.endpoint
        match found.outcome:
            case AttemptOutcome.OK | AttemptOutcome.LINE_ERROR:
                endpoint.on_answered()
                if isinstance(result, TimedOut):
                    endpoint.limiter.on_overload(flight.sent_at, now)
            case AttemptOutcome.ENDPOINT_ERROR if found.overload:
                endpoint.on_overload(
                    reason=found.reason, sent_at=flight.sent_at, now=now, after=found.after
                )
            case _:  # ENDPOINT_ERROR or UNKNOWN: no reply or fault is anything else.
                endpoint.on_sick(
                    reason=found.reason, sent_at=flight.sent_at, now=now, after=found.after
                )

    def _is_final(self, flight: Attempt, found: ClassifiedAttempt, *, is_odd_one: bool) -> bool:
        shard, index = flight.shard, flight.index
        match found.outcome:
            case AttemptOutcome.OK:
                return True
            case AttemptOutcome.ENDPOINT_ERROR if is_odd_one and not found.overload:
                shard.unsure[index] = shard.unsure.get(index, 0) + 1
            case AttemptOutcome.ENDPOINT_ERROR:
                return False
            case AttemptOutcome.LINE_ERROR:
                shard.attempts[index] = shard.attempts.get(index, 0) + 1
            case _:  # UNKNOWN
                shard.unsure[index] = shard.unsure.get(index, 0) + 1
        return (
            shard.attempts.get(index, 0) >= self._retry.attempts_max
            or shard.unsure.get(index, 0) >= self._retry.unsure_max
        )

    def _try_again(self, flight: Attempt, found: ClassifiedAttempt, now: float) -> None:
        shard, index = flight.shard, flight.index
        failures = (
            shard.attempts.get(index, 0) + shard.unsure.get(index, 0) + shard.refusals.get(index, 0)
        )
        delay = self._retry.delay(max(1, failures), self._rng.random())
        if found.after is not None:
            delay = max(delay, min(found.after, self._retry.delay_seconds_max))
        shard.sleep_until(index, now + delay)
