"""What may go wrong in a world, each as a number, all of them drawn from its seed."""

import random
from dataclasses import dataclass, replace

_DEAF_WORLDS = 0.2
_FAULT_IS_ON = 0.6
_POISONED_WORLDS = 0.5
_BAD_DISKS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How likely each fault is, for each port call where nothing else is said.

    Attributes:
        crash_before: the process dies before the call has an effect.
        crash_after: it dies after the effect, before the answer.
        answer_lost: the ledger did it, but the caller gets no answer.
        refused: the ledger does not answer, and has done nothing.
        full: there is no room to write; part of the bytes may have been written.
        delivered_twice: the call reaches the ledger twice.
        paused: the process stands still for longer than a claim.
        signal_lost: an announcement reaches nobody; 1.0 is a deaf world.
        clock_jump: the clock of the caller, or of the ledger, is set to another time.
        clock_skew_seconds_max: how far any clock may be off.
        torn: a crash in the midst of a write leaves part of its bytes, and perhaps junk behind.
        cut_off: one process loses one port for a while; requests may still arrive.
        upstream_sick: a call finds the model server going down for a while.
        upstream_silent: a call gets no answer in time.
        upstream_slow: a call to the slow model takes a minute.
        upstream_flaky: the flaky model answers badly.
        model_dead: one model is away, for all of the faults and a while beyond; for each world.
        poison: a line kills every process that sends it, also once the faults stop; for each line.
        child_dies: a child process dies of a good line; at most once for each line.
        child_not_started: no child process can be started.
        vanished: a blob of results is gone, once; for each world.
        flush_failed: a flush of bytes fails, and the process can write no more.
        client_gone: an upload breaks off in the midst of its form.
        reply_lost: the API did it, but its user gets no answer.
        latency_seconds_max: how long a port call may take, each way.
    """

    crash_before: float = 0.0
    crash_after: float = 0.0
    answer_lost: float = 0.0
    refused: float = 0.0
    full: float = 0.0
    delivered_twice: float = 0.0
    paused: float = 0.0
    signal_lost: float = 0.0
    clock_jump: float = 0.0
    clock_skew_seconds_max: float = 0.0
    torn: float = 0.0
    cut_off: float = 0.0
    upstream_sick: float = 0.0
    upstream_silent: float = 0.0
    upstream_slow: float = 0.0
    upstream_flaky: float = 0.0
    model_dead: float = 0.0
    poison: float = 0.0
    child_dies: float = 0.0
    child_not_started: float = 0.0
    vanished: float = 0.0
    flush_failed: float = 0.0
    client_gone: float = 0.0
    reply_lost: float = 0.0
    latency_seconds_max: float = 0.01

    @classmethod
    def swarm(cls, rng: random.Random) -> "Odds":
        """Draw a world in which some faults are common and others never happen."""

        def odds(most: float) -> float:
            return rng.uniform(0.0, most) if rng.random() < _FAULT_IS_ON else 0.0

        return cls(
            crash_before=odds(0.01),
            crash_after=odds(0.01),
            answer_lost=odds(0.1),
            refused=odds(0.1),
            full=odds(0.05),
            delivered_twice=odds(0.1),
            paused=odds(0.01),
            signal_lost=1.0 if rng.random() < _DEAF_WORLDS else odds(0.5),
            clock_jump=odds(0.005),
            clock_skew_seconds_max=odds(60.0),
            torn=odds(1.0),
            cut_off=odds(0.01),
            upstream_sick=odds(0.04),
            upstream_silent=odds(0.06),
            upstream_slow=odds(0.1),
            upstream_flaky=odds(1.0),
            model_dead=odds(0.5),
            poison=odds(0.06) if rng.random() < _POISONED_WORLDS else 0.0,
            child_dies=odds(0.9),
            child_not_started=odds(0.3),
            vanished=odds(1.0),
            client_gone=odds(0.3),
            reply_lost=odds(0.2),
            latency_seconds_max=rng.choice([0.0, 0.002, 0.02, 0.2]),
        )

    def with_bad_disks(self, rng: random.Random) -> "Odds":
        """Return a world where flushes may fail as well; in most of them none does."""
        bad = rng.random() < _BAD_DISKS
        return replace(self, flush_failed=rng.uniform(0.0, 0.02) if bad else 0.0)

    def calm(self) -> "Odds":
        """Return a world of the same pace in which nothing goes wrong."""
        return Odds(latency_seconds_max=self.latency_seconds_max)
