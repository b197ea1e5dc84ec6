"""What vLLM checks of a request before it takes it in."""

from tidegate.simulator.engine.settings import EngineSettings, Policy
from tidegate.simulator.engine.tokens import VOCABULARY
from tidegate.simulator.requests.bodies import Body, ChatBody, CompletionBody
from tidegate.simulator.requests.refusal import Refused

CHOICES_MAX = 4_096
LOGPROBS_MAX = 20
STOPS_MAX = 64
SALT_CHARACTERS_MAX = 128
TEMPERATURE_MAX = 2
ECHO_CHARACTERS_MAX = 16 * 1024 * 1024
LIKELY_MAX = 1_000_000
TOKEN_ID_MAX = (1 << 32) - 1
_NOT_IN_SALTS = frozenset("@/\\\0")
_INT64_MAX = (1 << 63) - 1
# Of the others vLLM only says the value.
_NAMED = frozenset({"temperature", "top_p"})
_RANGES = (
    ("top_p", 0, 1, "in (0, 1]"),
    ("top_k", -1, _INT64_MAX, "0 (disable), or at least 1"),
    ("min_p", 0, 1, "in [0, 1]"),
    ("presence_penalty", -2, 2, "in [-2, 2]"),
    ("frequency_penalty", -2, 2, "in [-2, 2]"),
)


def check_sampling(body: Body) -> None:
    """Refuse values that no sampler takes, in vLLM's words."""
    _check_ranges(body)
    if body.repetition_penalty is not None and body.repetition_penalty <= 0:
        raise Refused(
            f"repetition_penalty must be greater than zero, got {body.repetition_penalty}."
        )
    if body.top_p == 0:
        raise Refused(
            "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)", param="top_p"
        )
    if body.n is not None and not 1 <= body.n <= CHOICES_MAX:
        rule = "at least 1" if body.n < 1 else f"at most {CHOICES_MAX}"
        raise Refused(f"n must be {rule}, got {body.n}.")
    if body.n is not None and body.n > 1 and body.temperature == 0:
        raise Refused(f"n must be 1 when using greedy sampling, got {body.n}.")
    if body.seed is not None and not -_INT64_MAX - 1 <= body.seed <= _INT64_MAX:
        raise Refused("seed must be a number of 64 bits.", param="seed")
    if not -_INT64_MAX - 1 <= body.priority <= _INT64_MAX:
        raise Refused("priority must be a number of 64 bits.", param="priority")
    check_salt(body.cache_salt)
    _check_stops(body)
    if body.stream_options is not None and not body.stream:
        raise Refused(
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
            param="stream_options",
        )


def _check_ranges(body: Body) -> None:
    if body.temperature is not None:
        rule = "non-negative" if body.temperature < 0 else f"in [0, {TEMPERATURE_MAX}]"
        _check_range("temperature", body.temperature, 0, TEMPERATURE_MAX, rule)
    for name, low, high, rule in _RANGES:
        value = getattr(body, name)
        if value is not None:
            _check_range(name, value, low, high, rule)


def _check_range(name: str, value: float, low: float, high: float, rule: str) -> None:
    if low <= value <= high:
        return
    if name not in _NAMED:
        raise Refused(f"{name} must be {rule}, got {value}.")
    raise Refused(
        f"{name} must be {rule}, got {value}. (parameter={name}, value={value})", param=name
    )


def check_salt(salt: str | None) -> None:
    """Refuse a salt of the prefix cache that has no, too many or forbidden characters."""
    if salt == "":
        raise Refused(
            "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)",
            param="cache_salt",
        )
    if salt is not None and (len(salt) > SALT_CHARACTERS_MAX or set(salt) & _NOT_IN_SALTS):
        raise Refused(
            f"Parameter 'cache_salt' must be at most {SALT_CHARACTERS_MAX} characters and must not "
            "contain '@', '/', '\\\\', or NUL. (parameter=cache_salt)",
            param="cache_salt",
        )


def _check_stops(body: Body) -> None:
    stops = stops_of(body)
    if len(stops) > STOPS_MAX or len(body.stop_token_ids or ()) > STOPS_MAX:
        raise Refused(f"At most {STOPS_MAX} stops are taken.", param="stop")
    if "" in stops:
        raise Refused("stop cannot contain an empty string.")


def stops_of(body: Body) -> tuple[str, ...]:
    """Return the texts that end an answer."""
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def check_priority(priority: int, size: EngineSettings) -> None:
    """Refuse a priority where the queue has none."""
    if priority and size.policy is not Policy.PRIORITY:
        raise Refused(
            f"Got priority {priority} but Priority scheduling is not enabled.", param="priority"
        )


def check_logprobs(name: str, count: int | None) -> None:
    """Refuse a number of log probabilities that is not offered; `name` is the member's."""
    _check_not_negative(name, count)
    check_top("logprobs", "sample logprobs", count)


def check_prompt_logprobs(body: Body) -> None:
    """Refuse a number of log probabilities of the prompt that is not offered."""
    count = body.prompt_logprobs
    if count is not None and body.stream and (count > 0 or count == -1):
        raise Refused(
            "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)",
            param="prompt_logprobs",
        )
    _check_not_negative("prompt_logprobs", count)
    check_top("prompt_logprobs", "prompt logprobs", count)


def _check_not_negative(name: str, count: int | None) -> None:
    if count is not None and count < -1:
        raise Refused(
            f"`{name}` must be a positive value or -1. (parameter={name}, value={count})",
            param=name,
        )


def check_top(name: str, what: str, count: int | None) -> None:
    """Refuse this many likely tokens; -1 stands for the whole vocabulary."""
    asked = VOCABULARY if count == -1 else count or 0
    if asked > LOGPROBS_MAX:
        raise Refused(
            f"Requested {what} of {asked}, which is greater than max allowed: {LOGPROBS_MAX} "
            f"(parameter={name}, value={asked})",
            param=name,
        )


def check_chat(body: ChatBody) -> None:
    """Refuse what makes no sense in a chat."""
    check_logprobs("top_logprobs", body.top_logprobs)
    check_prompt_logprobs(body)
    if body.top_logprobs and not body.logprobs:
        raise Refused(
            "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)",
            param="top_logprobs",
        )


def check_completion(body: CompletionBody) -> None:
    """Refuse what makes no sense in a completion."""
    check_logprobs("logprobs", body.logprobs)
    check_prompt_logprobs(body)
    if body.suffix:
        raise Refused("suffix is not currently supported", param="suffix")


def check_size(likely: int, echoed: int) -> None:
    """Refuse an answer that would show too many likely tokens, or repeat too much.

    Args:
        likely: how many likely tokens it shows, of all places together.
        echoed: how many characters of prompts it repeats.
    """
    if likely > LIKELY_MAX:
        raise Refused(
            f"An answer shows {LIKELY_MAX} likely tokens at most, and this would be {likely}: ask "
            "for fewer logprobs, tokens or choices.",
            param="logprobs",
        )
    if echoed > ECHO_CHARACTERS_MAX:
        raise Refused(
            f"An answer repeats {ECHO_CHARACTERS_MAX} characters of prompts at most.", param="echo"
        )


def output_bound(asked: int | None, min_tokens: int, prompt_tokens: int, length_max: int) -> int:
    """Return how many tokens may come out at most.

    Raises:
        Refused: prompt and output do not fit into the model's length together.
    """
    if asked is not None and asked < 1:
        raise Refused(
            f"max_tokens must be at least 1, got {asked}. (parameter=max_tokens, value={asked})",
            param="max_tokens",
        )
    if asked is not None and asked > length_max:
        raise Refused(
            f"max_tokens={asked} cannot be greater than max_model_len={length_max}. "
            f"Please request fewer output tokens. (parameter=max_tokens, value={asked})",
            param="max_tokens",
        )
    wanted = asked if asked is not None else 1
    if prompt_tokens + wanted > length_max:
        raise too_long(asked or 0, prompt_tokens, length_max)
    bound = asked if asked is not None else length_max - prompt_tokens
    if not 0 <= min_tokens <= bound:
        rule = (
            "greater than or equal to 0"
            if min_tokens < 0
            else f"less than or equal to max_tokens={bound}"
        )
        raise Refused(f"min_tokens must be {rule}, got {min_tokens}.")
    return bound


def too_long(asked: int, prompt_tokens: int, length_max: int) -> Refused:
    """Return the refusal of a prompt that leaves no room for what was asked."""
    if prompt_tokens > length_max:
        least = "at least " if prompt_tokens == length_max + 1 else ""
        return Refused(
            f"This model's maximum context length is {length_max} tokens. However, your prompt "
            f"contains {least}{prompt_tokens} input tokens, which exceeds this limit even without "
            "any output tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={prompt_tokens})",
            param="input_tokens",
        )
    return Refused(
        f"This model's maximum context length is {length_max} tokens. However, you requested "
        f"{asked} output tokens and your prompt contains at least {prompt_tokens} input tokens, "
        f"for a total of at least {asked + prompt_tokens} tokens. Please reduce the length of the "
        "input prompt or the number of requested output tokens. "
        f"(parameter=input_tokens, value={prompt_tokens})",
        param="input_tokens",
    )
