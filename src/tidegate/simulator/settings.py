"""What a simulated model server is like."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.domain.errors import SettingsInvalid

TOKENS_MAX = 4096
_FULL_STATUSES = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Settings of one simulated server. Durations are seconds.

    An answer takes (`latency_seconds` + `token_seconds` for each token of it), times the model's
    factor.

    Attributes:
        models: the models that it serves; any other is answered with 404.
        model_factors: how much slower than the rest a model is; 1 where nothing is said.
        output_tokens: how long answers are at most unless the request says so.
        in_flight_max: how many requests it works on at a time; None for no bound.
        full_status: what the others hear meanwhile, 429 or 503.
        loading_seconds: how long after its first request it answers everything with 503.
        api_key: the bearer key that requests must carry; None for none.
        seed: answers are a function of the seed and the request's body.
    """

    models: tuple[str, ...] = ("sim",)
    latency_seconds: float = 0.0
    token_seconds: float = 0.0
    model_factors: Mapping[str, float] = field(default_factory=dict)
    output_tokens: int = 16
    in_flight_max: int | None = None
    full_status: int = 429
    loading_seconds: float = 0.0
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsInvalid("A simulated server needs at least one model: set models.")
        times = (self.latency_seconds, self.token_seconds, self.loading_seconds)
        if min(*times, *self.model_factors.values()) < 0:
            raise SettingsInvalid("Durations and model_factors of the simulator can't be negative.")
        if not 1 <= self.output_tokens <= TOKENS_MAX:
            raise SettingsInvalid(f"Set the simulator's output_tokens from 1 to {TOKENS_MAX}.")
        if self.in_flight_max is not None and self.in_flight_max < 1:
            raise SettingsInvalid("Set the simulator's in_flight_max to 1 or more, or leave it.")
        if self.full_status not in _FULL_STATUSES:
            raise SettingsInvalid("Set the simulator's full_status to 429 or 503.")
