"""What a landing means: a result, another try, and what the endpoint is to be told."""

import asyncio
import random
from typing import Final

from tidegate.domain.errors import TimedOut, UpstreamFault
from tidegate.domain.retry import BLAMES_NOBODY, Blame, Retry
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.processor.flight import Flight
from tidegate.processor.outcome import NOT_FOUND, Outcome, judge_fault, judge_reply
from tidegate.processor.quarantine import Death, Quarantine
from tidegate.processor.run import Entry
from tidegate.upstreams.base import Reply

REFUSALS_OF_AN_ODD_ONE = 3

_NOBODY: Final = Blame.NOBODY.value


class Judge:
    """Decides what becomes of lines that landed. Nothing here does I/O."""

    def __init__(self, retry: Retry, chance: random.Random, quarantine: Quarantine) -> None:
        self._retry = retry
        self._chance = chance
        self._quarantine = quarantine

    # Alone

    def mourn(self, flight: Flight, death: Death) -> None:
        """Blame a line that killed often enough; else let it wait until all others have gone."""
        shard, index = flight.shard, flight.index
        if death.count >= DEATHS_TO_BLAME:
            self._quarantine.blame(flight.run, shard, index)
            return
        delay = self._retry.delay(max(1, death.count), self._chance.random())
        shard.sleep_until(index, asyncio.get_running_loop().time() + delay)

    def rest(self, flight: Flight) -> None:
        """Leave a shard alone for a while whose child process could not be started."""
        shard = flight.shard
        shard.put_back(flight.index)
        shard.starts_failed += 1
        delay = self._retry.delay(shard.starts_failed, self._chance.random())
        shard.rests_until = asyncio.get_running_loop().time() + delay

    # Judging

    def weigh(self, flight: Flight, result: Reply | UpstreamFault, now: float) -> str:
        """Act on a reply or a fault; say in a word whose fault it was."""
        outcome = self._judge(flight, result, now)
        if outcome.blame is BLAMES_NOBODY and isinstance(result, Reply):
            # By far the most: nothing of what follows would change anything.
            flight.endpoint.on_served(
                flight.shard.model, now, len(result.body), flight.in_flight_at_send
            )
            self._finish(flight, outcome)
            return _NOBODY
        is_odd_one = self._is_odd_one(flight, outcome, result, now)
        if not (is_odd_one and outcome.overload):
            self._tell_endpoint(flight, result, outcome, now)
        if self._is_final(flight, outcome, is_odd_one=is_odd_one):
            self._finish(flight, outcome)
        else:
            self._try_again(flight, outcome, now)
        return outcome.blame.value

    def _finish(self, flight: Flight, outcome: Outcome) -> None:
        run, shard = flight.run, flight.shard
        run.finished[shard.model] = run.finished.get(shard.model, 0) + 1
        run.add(
            Entry(
                shard,
                flight.index,
                outcome.line,
                outcome.usage,
                is_error=outcome.is_error,
            )
        )

    def _judge(self, flight: Flight, result: Reply | UpstreamFault, now: float) -> Outcome:
        endpoint, line, request_id = flight.endpoint, flight.line, flight.request_id
        if isinstance(result, Reply):
            starting = result.status == NOT_FOUND and endpoint.is_starting(flight.shard.model, now)
            return judge_reply(result, request_id, line.custom_id, starting=starting)
        serves_others = endpoint.served_at > flight.sent_at
        return judge_fault(result, request_id, line.custom_id, serves_others=serves_others)

    def _is_odd_one(
        self, flight: Flight, outcome: Outcome, result: Reply | UpstreamFault, now: float
    ) -> bool:
        """Say whether the endpoint refuses this line again and again, while it serves others.

        Then the refusal says more of the line than of the endpoint: a content filter's 403, a
        proxy's 504 for one that takes too long, a quota that only this request would break.
        """
        if outcome.blame is not Blame.ENDPOINT or not isinstance(result, Reply):
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
        self, flight: Flight, result: Reply | UpstreamFault, outcome: Outcome, now: float
    ) -> None:
        endpoint = flight.endpoint
        match outcome.blame:
            case Blame.NOBODY | Blame.LINE:
                endpoint.on_answered()
                if isinstance(result, TimedOut):
                    endpoint.limiter.on_overload(flight.sent_at, now)
            case Blame.ENDPOINT if outcome.overload:
                endpoint.on_overload(
                    reason=outcome.reason, sent_at=flight.sent_at, now=now, after=outcome.after
                )
            case Blame.ENDPOINT | Blame.UNSURE:
                endpoint.on_sick(
                    reason=outcome.reason, sent_at=flight.sent_at, now=now, after=outcome.after
                )

    def _is_final(self, flight: Flight, outcome: Outcome, *, is_odd_one: bool) -> bool:
        shard, index = flight.shard, flight.index
        match outcome.blame:
            case Blame.NOBODY:
                return True
            case Blame.ENDPOINT if is_odd_one and not outcome.overload:
                shard.unsure[index] = shard.unsure.get(index, 0) + 1
            case Blame.ENDPOINT:
                return False
            case Blame.LINE:
                shard.attempts[index] = shard.attempts.get(index, 0) + 1
            case Blame.UNSURE:
                shard.unsure[index] = shard.unsure.get(index, 0) + 1
        return (
            shard.attempts.get(index, 0) >= self._retry.attempts_max
            or shard.unsure.get(index, 0) >= self._retry.unsure_max
        )

    def _try_again(self, flight: Flight, outcome: Outcome, now: float) -> None:
        shard, index = flight.shard, flight.index
        failures = (
            shard.attempts.get(index, 0) + shard.unsure.get(index, 0) + shard.refusals.get(index, 0)
        )
        delay = self._retry.delay(max(1, failures), self._chance.random())
        if outcome.after is not None:
            delay = max(delay, min(outcome.after, self._retry.delay_seconds_max))
        shard.sleep_until(index, now + delay)
