"""What each answer will be: its length, its text and why it ends, known before it begins."""

from array import array
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import msgspec

from tidegate.simulator.answers.seeded import usual_length
from tidegate.simulator.engine import tokens
from tidegate.simulator.engine.tokens import Outputs


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds an answer.

    `tokens_max` tokens come out at most, `tokens_min` before a stop counts, and with `ignore_eos`
    the answer does not end by itself.
    """

    tokens_max: int
    tokens_min: int = 0
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    keeps_stop: bool = False


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a function, with the JSON text of its arguments."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True, eq=False)
class Plan:
    """One answer to come.

    Attributes:
        total: how many tokens it has.
        finish: `stop`, `length` or `tool_calls`.
        stop_reason: the text or the token that ended it, if one did.
        pieces: the text of each token, or None where they are drawn words.
        calls: the functions that it calls; then `marks` says for each token which one it is of.
        script: the tokens, where they are not drawn.
        limit: how many tokens it might have had.
        is_aborted: whether the last piece stands for an end that came before its token.
    """

    total: int
    finish: str
    _: KW_ONLY
    stop_reason: str | int | None = None
    pieces: list[str] | None = None
    calls: tuple[ToolCall, ...] = ()
    marks: Sequence[int] = ()
    script: "array[int] | None" = None
    limit: int = field(init=False)
    is_aborted: bool = False

    def __post_init__(self) -> None:
        self.limit = self.total

    @property
    def output_tokens(self) -> int:
        """Return how many tokens come out."""
        return self.total - self.is_aborted

    def abort(self, ids: Sequence[int]) -> None:
        """End after these tokens, sooner than it was planned."""
        generated = len(ids)
        assert generated < self.total, "aborted after its end"
        pieces = self.pieces
        if pieces is None:
            pieces = [tokens.detokenize([token]) for token in ids]
        self.pieces = [*pieces[:generated], ""]
        self.total = generated + 1
        self.finish, self.stop_reason = "abort", None
        self.is_aborted = True


def free(limits: Limits, *, seed: int, key: str, number: int, median: int) -> Plan:
    """Return the plan of an answer of drawn words; `number` chooses its length."""
    natural = max(usual_length(number, median), limits.tokens_min)
    ends_itself = not limits.ignore_eos and natural < limits.tokens_max
    total = natural if ends_itself else limits.tokens_max
    plan = Plan(total, "stop" if ends_itself else "length")
    plan.limit = limits.tokens_max
    if limits.stops or limits.stop_ids:
        _stop_early(plan, limits, array("I", Outputs(seed, key).ids(0, total)))
    return plan


class Wording(msgspec.Struct, frozen=True):
    """A text in pieces that are a token each, which several plans can share."""

    pieces: list[str]
    ids: "array[int]"


def wording(text: str) -> Wording:
    """Return a text as its tokens; the empty one is a token without text."""
    pieces = tokens.pieces(text) or [""]
    return Wording(pieces, array("I", [tokens.token_of(piece) for piece in pieces]))


def written(limits: Limits, words: Wording) -> Plan:
    """Return the plan of an answer with these words, as many of them as fit."""
    plan = _cut(words, limits)
    if limits.stops or limits.stop_ids:
        _stop_early(plan, limits, words.ids[: plan.total], words.pieces)
    return plan


def calling(limits: Limits, calls: tuple[ToolCall, ...], finish: str) -> Plan:
    """Return the plan of an answer that calls functions: a token for each name, then arguments."""
    pieces: list[str] = []
    marks: list[int] = []
    for index, call in enumerate(calls):
        arguments = tokens.pieces(call.arguments)
        pieces += ["", *arguments]
        marks += [index] * (len(arguments) + 1)
    ids = array("I", [tokens.token_of(piece) for piece in pieces])
    plan = _cut(Wording(pieces, ids), limits)
    plan.calls, plan.marks = calls, marks
    if plan.finish == "stop":
        plan.finish = finish
    return plan


def _cut(words: Wording, limits: Limits) -> Plan:
    total = min(len(words.pieces), limits.tokens_max)
    is_whole = total == len(words.pieces)
    plan = Plan(total, "stop" if is_whole else "length", pieces=words.pieces)
    plan.limit = limits.tokens_max
    plan.script = words.ids
    return plan


def _stop_early(
    plan: Plan, limits: Limits, ids: "array[int]", pieces: list[str] | None = None
) -> None:
    """End a plan where the first stop comes; its text goes up to the stop."""
    texts = pieces if pieces is not None else [tokens.detokenize([token]) for token in ids]
    texts = texts[: plan.total]
    found: tuple[int, str | int] | None = None
    so_far, reach = "", max(map(len, limits.stops), default=1)
    length = 0
    for place, piece in enumerate(texts):
        tail = so_far[-(reach - 1) :] if reach > 1 else ""
        window = tail + piece
        so_far = window
        begin, length = length - len(tail), length + len(piece)
        if place + 1 < limits.tokens_min:
            continue
        hits = [(window.find(stop), stop) for stop in limits.stops]
        first = min((hit for hit in hits if hit[0] >= 0), default=None)
        if first is not None:
            at = begin + first[0] + (len(first[1]) if limits.keeps_stop else 0)
            found = at, first[1]
        elif ids[place] in limits.stop_ids:
            found = length if limits.keeps_stop else length - len(piece), ids[place]
        if found is not None:
            plan.total = place + 1
            break
    if found is None:
        return
    plan.finish, plan.stop_reason = "stop", found[1]
    plan.pieces = _trimmed(texts[: plan.total], found[0])


def _trimmed(pieces: list[str], length: int) -> list[str]:
    """Return the same number of pieces with `characters` characters together."""
    trimmed = []
    for piece in pieces:
        trimmed.append(piece[:length])
        length = max(0, length - len(piece))
    return trimmed
