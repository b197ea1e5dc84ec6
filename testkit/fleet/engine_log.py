"""What anybody can see of a simulated engine, written down, so that two of them can be compared."""

from typing_extensions import override

from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.sequence import Sequence

# Primes: no two events of different kinds fall on one moment by their sums.
ODD_COST = Cost(
    fixed_ps=1_000_003, prefill_token_ps=1_009, decode_seq_ps=10_007, context_token_ps=101
)
Log = list[tuple[object, ...]]


class Recorder(Listener):
    """Writes down everything but blocks and steps, which differ by design where work is saved."""

    def __init__(self) -> None:
        self.log: Log = []

    @override
    def scheduled(self, sequence: Sequence, at_ps: int) -> None:
        self.log.append(("scheduled", sequence.request.key, at_ps, sequence.cached_tokens))

    @override
    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        self.log.append(("first", sequence.request.key, at_ps))

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        self.log.append(("finished", sequence.request.key, at_ps))

    @override
    def preempted(self, sequence: Sequence, at_ps: int) -> None:
        self.log.append(("preempted", sequence.request.key, at_ps))
