"""An answer on its way: one or more sequences of the engine, and the reply that they become."""

from array import array
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from tidegate.simulator.answers.plans import Plan
from tidegate.simulator.engine.sequence import Request, Sequence, State
from tidegate.simulator.engine.tokens import CHUNK_TOKENS, WORD_BYTES
from tidegate.simulator.faults.per_request import RequestFault
from tidegate.simulator.web.call import Call

EVENTS_AT_ONCE_MAX = 64
_DECODING = State.DECODING
_BETWEEN_EVENTS = b"\n\n"
_GARBAGE = b'data: {"id":"\xff\xfe","choices":[{"delta":\n\n'


class Style(Protocol):
    """How the answers of one endpoint are written down. Events are bytes of a stream."""

    def around_word(self, choice: "Choice") -> tuple[bytes, bytes] | None:
        """Return what stands before and after a drawn word in its event; None if that varies."""

    def first(self, choice: "Choice") -> bytes:
        """Return the events before the first token of a choice."""

    def delta(self, choice: "Choice", start: int, stop: int) -> bytes:
        """Return the events of these tokens, none of them the last."""

    def last(self, choice: "Choice", start: int) -> bytes:
        """Return the events of the rest of the tokens, and of the end of a choice."""

    def end(self, generation: "Generation") -> bytes:
        """Return the events after the end of the last choice."""

    def whole(self, generation: "Generation") -> bytes:
        """Return the body of a reply that is no stream."""


class Runner(Protocol):
    """Who runs sequences."""

    def submit(self, choice: "Choice") -> Sequence:
        """Take a choice in."""

    def withdraw(self, choice: "Choice") -> None:
        """End a choice at once."""

    def ended(self, generation: "Generation") -> None:
        """Record that a reply is complete, or that its client is gone."""


@dataclass(slots=True, eq=False, repr=False)
class Choice:
    """One sequence of an answer.

    Attributes:
        index: its number in the answer.
        plan: what it will say.
        request: what the engine is asked.
        sequence: in the engine, once it is submitted.
        sent: how many of its tokens were sent.
    """

    index: int
    plan: Plan
    request: Request
    sequence: Sequence | None = None
    sent: int = 0
    is_ended: bool = False
    is_complete: bool = False
    generation: "Generation" = field(init=False)
    _words: list[bytes] = field(default_factory=list, init=False)
    _before: bytes = b""
    _after: bytes = b""

    @property
    def is_streamed(self) -> bool:
        """Return whether its tokens are sent as they come."""
        return self.generation.is_streamed

    def deliver(self, step: int) -> None:
        """Send what has come since the last time, unless the reader is behind."""
        sequence, sent = self.sequence, self.sent
        assert sequence is not None, "delivered before it was submitted"
        count = step - sequence.base if sequence.state is _DECODING else sequence.generated_before
        if count == sent + 1 and self._before and count < self.plan.total:
            call = self.generation.call
            if call.is_stalled:
                return
            place = sent % CHUNK_TOKENS
            if not place or not self._words:
                self._draw_words()
            self.sent = count
            call.send_framed(self._before + self._words[place] + self._after)
        elif count > sent:
            self._deliver_some(count)

    def ended(self) -> None:
        """Record that all tokens are there."""
        self.is_ended = True
        if not self.is_streamed:
            self.is_complete = True
            self.generation.choice_ended()
        else:
            self._deliver_some(self.plan.total)

    def abort(self, generated: int) -> None:
        """Record that no more than these tokens will come."""
        assert self.sequence is not None, "aborted before it was submitted"
        self.plan.abort(array("I", self.sequence.outputs.ids(0, generated)))
        self._before = b""
        self.ended()

    def flow(self) -> None:
        """Go on where the reader was behind; the driver does so itself while tokens come."""
        if self.is_ended and not self.is_complete:
            self._deliver_some(self.plan.total)

    def _deliver_some(self, count: int) -> None:
        """Send tokens up to this one, `at_once` in one piece, as long as the reader takes them."""
        generation, style = self.generation, self.generation.style
        call, before_last = generation.call, min(count, self.plan.total - 1)
        if not self.sent and not call.is_stalled:
            self._open()
        while self.sent < before_last and not (call.is_stalled or call.is_over):
            stop = min(before_last, self.sent + EVENTS_AT_ONCE_MAX)
            events = style.delta(self, self.sent, stop)
            self.sent = stop
            generation.send(events)
        if count < self.plan.total or call.is_stalled or call.is_over or self.is_complete:
            return
        if self.is_ended:
            events = style.last(self, self.sent)
            self.sent = self.plan.total
            self.is_complete = True
            generation.choice_ended(events)

    def _open(self) -> None:
        generation = self.generation
        opening = generation.style.first(self)
        around = generation.style.around_word(self) if self.plan.pieces is None else None
        if around is not None and not generation.is_tampered:
            before, after = around
            size = len(before) + len(WORD_BYTES[0]) + len(after)
            self._before, self._after = generation.call.framing(size, before, after)
        if opening:
            generation.send(opening)

    def _draw_words(self) -> None:
        assert self.sequence is not None, "drawn before it was submitted"
        start = self.sent - self.sent % CHUNK_TOKENS
        ids = array("I", self.sequence.outputs.ids(start, start + CHUNK_TOKENS))
        self._words = [WORD_BYTES[token] for token in ids]


@dataclass(slots=True, eq=False, repr=False)
class Generation:
    """The answer to one call: it listens to the engine for tokens and writes the reply.

    Attributes:
        parses: the kind of request in which calls of tools are looked for; empty where they aren't.
    """

    call: Call
    style: Style
    choices: list[Choice]
    runner: Runner
    _: KW_ONLY
    is_streamed: bool
    order: RequestFault | None = None
    parses: str = ""
    is_tampered: bool = field(init=False)
    _left: int = field(init=False)
    _events: int = 0
    _is_over: bool = False

    def __post_init__(self) -> None:
        order = self.order
        self.is_tampered = order is not None and (order.garbage or order.cut)
        self._left = len(self.choices)
        for choice in self.choices:
            choice.generation = self

    @property
    def prompt_tokens(self) -> int:
        """Count the tokens of the prompts; several choices of one prompt share it."""
        prompts = {id(choice.request.prompt): len(choice.request.prompt) for choice in self.choices}
        return sum(prompts.values())

    @property
    def output_tokens(self) -> int:
        """Count the tokens of all choices."""
        return sum(choice.plan.output_tokens for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Count the tokens of the prompts that were found in the prefix cache."""
        found: dict[int, int] = {}
        for choice in self.choices:
            if choice.sequence is not None:
                found.setdefault(id(choice.request.prompt), choice.sequence.cached_tokens or 0)
        return sum(found.values())

    def begin(self) -> None:
        """Hand all choices to the engine."""
        if self.is_streamed:
            self.call.open()
        self.call.work = self
        for choice in self.choices:
            choice.sequence = self.runner.submit(choice)

    def send(self, events: bytes) -> None:
        """Send events, or what a fault makes of them."""
        order = self.order
        if order is None or not self.is_tampered:
            self.call.write(events)
        elif order.garbage:
            self.call.write(_GARBAGE)
        else:
            left = order.cut_after - self._events
            pieces = events.split(_BETWEEN_EVENTS)[:-1][:left]
            self._events += len(pieces)
            self.call.write(b"".join([piece + _BETWEEN_EVENTS for piece in pieces]))
            if self._events >= order.cut_after:
                self.call.cut()
                self.gone()

    def choice_ended(self, events: bytes = b"") -> None:
        """Record that a choice is complete, with its last events."""
        self._left -= 1
        if self._left:
            if events:
                self.send(events)
            return
        if self._is_over:
            return
        if self.is_tampered:
            self._end_tampered(events)
        elif self.is_streamed:
            self.call.close(events + self.style.end(self))
        else:
            self.call.answer(200, self.style.whole(self))
        self._end()

    def gone(self) -> None:
        """Take everything out of the engine: nobody waits for it any more."""
        if self._is_over:
            return
        for choice in self.choices:
            self.runner.withdraw(choice)
        self._end()

    def flowing(self) -> None:
        """Go on with what ended while the reader was behind."""
        for choice in self.choices:
            choice.flow()

    def _end_tampered(self, events: bytes) -> None:
        order = self.order
        assert order is not None, "a fault that nobody ordered"
        if self.is_streamed:
            self.send(events)
            if not self.call.is_over:
                self.call.close(self.style.end(self))
        elif order.garbage:
            self.call.answer(200, _GARBAGE)
        else:
            self.call.half(self.style.whole(self))

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.runner.ended(self)
        # Choices know their answer: without this ring of references all is freed at once.
        self.choices = []
