"""Settles attempts: a line gets its result or another try, and its endpoint is updated."""

import asyncio
import random
from typing import Final

from tidegate.domain.errors import SandboxNotStarted, TimedOut, UpstreamFault
from tidegate.domain.retry import OK, AttemptOutcome, Retry
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.endpoints.classify import ClassifiedAttempt, classify
from tidegate.processor.dispatch.attempt import Attempt, AttemptResult
from tidegate.processor.dispatch.open_batch import ResultLine
from tidegate.processor.dispatch.quarantine import Quarantine, SandboxDeath
from tidegate.upstreams.base import Reply

REFUSALS_OF_OUTLIER = 3

# Values, not members, because one of them is counted with each line.
_OK: Final = AttemptOutcome.OK.value
_CANCELLED: Final = AttemptOutcome.CANCELLED.value
_SANDBOX_DIED: Final = AttemptOutcome.SANDBOX_DIED.value


class AttemptSettler:
    """Settles attempts on open shards. Nothing here does I/O."""

    def __init__(self, retry: Retry, rng: random.Random, quarantine: Quarantine) -> None:
        self._retry = retry
        self._rng = rng
        self._quarantine = quarantine

    def settle(self, attempt: Attempt, result: AttemptResult, now: float) -> str | None:
        """Give the line its result or another try; return the value of its `AttemptOutcome`.

        None if nothing was sent, because no sandbox could be started.
        """
        match result:
            case Reply() | UpstreamFault():
                return self._settle_result(attempt, result, now)
            case None:
                attempt.shard.put_back(attempt.index)
                return _CANCELLED
            case SandboxNotStarted():
                self._back_off(attempt)
                return None
            case SandboxDeath():
                self._on_sandbox_death(attempt, result)
                return _SANDBOX_DIED

    # In a sandbox

    def _on_sandbox_death(self, attempt: Attempt, death: SandboxDeath) -> None:
        """Fail a line that killed enough processes; else run it again after all others."""
        shard, index = attempt.shard, attempt.index
        if death.count >= DEATHS_TO_BLAME:
            self._quarantine.fail_poison_line(attempt.open_batch, shard, index)
            return
        delay = self._retry.delay(max(1, death.count), self._rng.random())
        shard.retry_at(index, asyncio.get_running_loop().time() + delay)

    def _back_off(self, attempt: Attempt) -> None:
        """Pause a shard whose child process could not be started."""
        shard = attempt.shard
        shard.put_back(attempt.index)
        shard.starts_failed += 1
        delay = self._retry.delay(shard.starts_failed, self._rng.random())
        shard.paused_until = asyncio.get_running_loop().time() + delay

    # By reply or fault

    def _settle_result(self, attempt: Attempt, result: Reply | UpstreamFault, now: float) -> str:
        endpoint, model = attempt.endpoint, attempt.shard.model
        found = classify(
            result,
            attempt.request_id,
            attempt.line.custom_id,
            endpoint=endpoint,
            model=model,
            sent_at=attempt.sent_at,
            now=now,
        )
        if found.outcome is OK and isinstance(result, Reply):
            # The common case, for which nothing below has an effect.
            endpoint.on_served(model, now, len(result.body), attempt.in_flight_at_send)
            self._finish(attempt, found)
            return _OK
        is_outlier = self._is_outlier(attempt, found, result, now)
        if not (is_outlier and found.overload):
            self._update_endpoint(attempt, result, found, now)
        if self._is_final(attempt, found, is_outlier=is_outlier):
            self._finish(attempt, found)
        else:
            self._try_again(attempt, found, now)
        return found.outcome.value

    def _finish(self, attempt: Attempt, found: ClassifiedAttempt) -> None:
        open_batch, shard = attempt.open_batch, attempt.shard
        open_batch.finished[shard.model] = open_batch.finished.get(shard.model, 0) + 1
        open_batch.add(
            ResultLine(shard, attempt.index, found.line, found.usage, is_error=found.is_error)
        )

    def _is_outlier(
        self, attempt: Attempt, found: ClassifiedAttempt, result: Reply | UpstreamFault, now: float
    ) -> bool:
        """Return whether the endpoint refuses this line repeatedly while it serves others.

        Then the line causes the refusal, not the endpoint: a content filter's 403, a proxy's 504
        for one that takes too long, a quota that only this request would exceed.
        """
        if found.outcome is not AttemptOutcome.ENDPOINT_ERROR or not isinstance(result, Reply):
            return False
        shard, index = attempt.shard, attempt.index
        before = shard.refused_at.get(index)
        shard.refused_at[index] = attempt.sent_at
        since = attempt.endpoint.on_refused((shard.claim.unit, index), now)
        if before is None:
            return False
        served_others = attempt.endpoint.served_at > before
        # A line that was an outlier before stays one while no other line is refused.
        is_still_outlier = index in shard.refusals and since < before
        if not served_others and not is_still_outlier:
            return False
        shard.refusals[index] = shard.refusals.get(index, 0) + 1
        return shard.refusals[index] >= REFUSALS_OF_OUTLIER

    def _update_endpoint(
        self, attempt: Attempt, result: Reply | UpstreamFault, found: ClassifiedAttempt, now: float
    ) -> None:
        endpoint = attempt.endpoint
        match found.outcome:
            case AttemptOutcome.OK | AttemptOutcome.LINE_ERROR:
                endpoint.on_answered()
                if isinstance(result, TimedOut):
                    endpoint.limiter.on_overload(attempt.sent_at, now)
            case AttemptOutcome.ENDPOINT_ERROR if found.overload:
                endpoint.on_overload(
                    reason=found.reason, sent_at=attempt.sent_at, now=now, after=found.after
                )
            case _:  # ENDPOINT_ERROR or UNKNOWN: no reply or fault is anything else.
                endpoint.on_fault(
                    reason=found.reason, sent_at=attempt.sent_at, now=now, after=found.after
                )

    def _is_final(self, attempt: Attempt, found: ClassifiedAttempt, *, is_outlier: bool) -> bool:
        shard, index = attempt.shard, attempt.index
        match found.outcome:
            case AttemptOutcome.OK:
                return True
            case AttemptOutcome.ENDPOINT_ERROR if is_outlier and not found.overload:
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

    def _try_again(self, attempt: Attempt, found: ClassifiedAttempt, now: float) -> None:
        shard, index = attempt.shard, attempt.index
        failures = (
            shard.attempts.get(index, 0) + shard.unsure.get(index, 0) + shard.refusals.get(index, 0)
        )
        delay = self._retry.delay(max(1, failures), self._rng.random())
        if found.after is not None:
            delay = max(delay, min(found.after, self._retry.delay_seconds_max))
        shard.retry_at(index, now + delay)
