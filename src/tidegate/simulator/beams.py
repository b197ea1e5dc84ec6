"""Beam search: several answers to one prompt, the best first, all of them decoded side by side."""

import math

from tidegate.simulator.bodies import Body
from tidegate.simulator.checks import LOGPROBS_MAX, check_top
from tidegate.simulator.generation import Choice
from tidegate.simulator.plans import Limits

END_TOKEN = 2
_BEST_SHARE = 0.9
_STEP = 0.05


def check_beams(body: Body) -> None:
    """Refuse more beams than a step can tell the likely tokens of: two for each.

    Raises:
        Refused: 400, in vLLM's words.
    """
    check_top("logprobs", "sample logprobs", 2 * (body.n or 1))


def limits_of_beam(limits: Limits) -> Limits:
    """Return what bounds a beam: stops and the least length do not."""
    return Limits(tokens_max=limits.tokens_max, ignore_eos=limits.ignore_eos)


def ranked(drafts: list[Choice], length_penalty: float) -> list[Choice]:
    """Return the beams of one prompt, the best first, with how likely each of them is."""
    assert len(drafts) <= LOGPROBS_MAX, "more beams than are permitted"

    def score(choice: Choice) -> float:
        plan = choice.plan
        assert plan.share is not None, "a beam without a share"
        # The sum of log probabilities over a power of the length, as a logarithm: no overflow.
        length = len(choice.request.prompt) + plan.total
        return math.log(-plan.total * math.log(plan.share)) - length_penalty * math.log(length)

    for place, choice in enumerate(drafts):
        choice.plan.share = _BEST_SHARE - _STEP * place
        if choice.plan.finish == "stop":
            choice.plan.stop_reason = END_TOKEN
    first = min((choice.index for choice in drafts), default=0)
    beams = sorted(drafts, key=score)
    for place, choice in enumerate(beams, start=first):
        choice.index = place
    return beams
