"""A request in the engine: what was asked, and how far it has come."""

from array import array
from dataclasses import InitVar, dataclass, field
from enum import Enum, auto
from hashlib import blake2b

import msgspec

from tidegate.simulator.engine.hashes import ROOT, block_key, hash_of
from tidegate.simulator.engine.tokens import Content, Outputs, Script


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is asked: a prompt, and how many tokens come out of it.

    `key` names the request in every random draw for it. `transfer_ps` is how long the keys and
    values of the prompt take to arrive where another engine has prefilled it (None: they are
    computed here). `salt` keeps its blocks apart from those of others. `script` holds the tokens
    that come out where they are not drawn, as many as come out at least. Without `reads_cache` the
    whole prompt is computed, also if parts of it are cached.
    """

    key: str
    prompt: "array[int]"
    output_tokens: int
    priority: int = 0
    lora: str | None = None
    salt: str = ""
    transfer_ps: int | None = None
    script: "array[int] | None" = None
    reads_cache: bool = True

    def __post_init__(self) -> None:
        assert len(self.prompt) > 0, "a prompt has at least one token"
        assert self.output_tokens > 0, self.output_tokens
        assert self.script is None or len(self.script) >= self.output_tokens, self.key

    @property
    def extra(self) -> int:
        """Return what distinguishes its blocks from equal tokens of others; 0 for nothing."""
        if self.lora is None and not self.salt:
            return 0
        text = f"{self.lora or ''}\x00{self.salt}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


class State(Enum):
    """The state of a sequence."""

    WAITING = auto()  # In the queue: new, or preempted.
    ARRIVING = auto()  # Holds its blocks; their contents are on the way from another engine.
    PREFILLING = auto()  # Its tokens are being computed, in one or more chunks.
    DECODING = auto()  # One more token with each step.
    ENDED = auto()  # Finished or aborted.


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on its way. Numbers of steps count all steps of the engine.

    While it decodes nothing here changes from step to step: after step s it has generated
    `s - base` tokens.
    """

    request: Request
    order: int
    arrived_ps: int
    seed: InitVar[int]
    state: State = State.WAITING
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    stored: int = 0
    base: int = 0
    started: int = 0
    generated_before: int = 0
    cached_tokens: int | None = None
    preemptions: int = 0
    turn: int = 0
    serial: int = 0
    scheduled_ps: int | None = None
    first_token_ps: int | None = None
    known_hashes: list[int] = field(default_factory=list)
    outputs: Outputs | Script = field(init=False)
    content: Content = field(init=False)
    prompt_tokens: int = field(init=False)
    extra: int = field(init=False)

    def __post_init__(self, seed: int) -> None:
        request = self.request
        self.outputs = (
            Outputs(seed, request.key) if request.script is None else Script(request.script)
        )
        self.content = Content(request.prompt.tobytes(), self.outputs)
        self.prompt_tokens = len(request.prompt)
        self.extra = request.extra

    @property
    def tokens(self) -> int:
        """Return how many tokens it has before it is prefilled: prompt and earlier output."""
        return self.prompt_tokens + self.generated_before

    def generated(self, step: int) -> int:
        """Return how many tokens have been generated when this step has ended."""
        return step - self.base if self.state is State.DECODING else self.generated_before

    def ids(self, start: int, stop: int) -> bytes:
        """Return tokens by place, four bytes each: of the prompt, then of the output."""
        return self.content.ids(start, stop)

    def hashes(self, blocks: int, block_size: int) -> list[int]:
        """Return the hashes of its first full blocks, and of no more."""
        known = self.known_hashes
        if len(known) > blocks:
            return known[:blocks]
        parent = known[-1] if known else ROOT
        ids, extra = self.content.ids, self.extra
        for start in range(len(known) * block_size, blocks * block_size, block_size):
            parent = hash_of(block_key(parent, ids(start, start + block_size), extra))
            known.append(parent)
        return known
