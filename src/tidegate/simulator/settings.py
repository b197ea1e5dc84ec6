"""What a simulated model server is like."""

from dataclasses import dataclass, field

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.engine.cost import PICOSECONDS, Cost
from tidegate.simulator.engine.presets import preset
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.faults.schedule import FaultPlan
from tidegate.simulator.kv_events.config import KvEventsConfig
from tidegate.simulator.metrics.fake import FakeMetrics
from tidegate.simulator.server.models import ADAPTERS_MAX, AdapterFlag

USUAL_TOKENS_MAX = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Settings of one simulated server. Durations are seconds.

    Attributes:
        models: the names that it serves, all by one engine; any other is answered with 404.
        engine: how much the engine holds.
        cost: how long its steps take.
        output_tokens: the median length of answers that nothing bounds.
        seed: answers are a function of the seed and the request.
        latency_seconds: what every request waits before the engine sees it.
        transfer_seconds, transfer_token_seconds: how long keys and values from another engine take
            to come, for each request and for each token of its prompt.
        in_flight_max: how many requests are accepted at a time; more get 429. None: no bound.
        queued_requests_max: how many sequences may wait or run; more get 503, as in vLLM.
        queued_tokens_max: how many tokens of prompts may wait for their first token; then 503.
        startup_seconds: how long after its start it answers everything with 503.
        api_keys: of which requests must carry one; empty for none.
        faults: what goes wrong by the clock.
        adapters: the LoRA adapters that it begins with; None: it takes none, and has no way to
            load one.
        sleep_mode: whether it can be put to sleep.
        kv_events: where the events of the prefix cache go.
        fakes: metrics that are shown in place of the measured ones.
    """

    models: tuple[str, ...] = ("sim",)
    engine: EngineSettings = field(default_factory=EngineSettings)
    cost: Cost = field(default_factory=lambda: preset("instant").cost)
    output_tokens: int = 16
    seed: int = 0
    latency_seconds: float = 0.0
    transfer_seconds: float = 0.0
    transfer_token_seconds: float = 0.0
    in_flight_max: int | None = None
    queued_requests_max: int | None = None
    queued_tokens_max: int | None = None
    startup_seconds: float = 0.0
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    faults: FaultPlan = field(default_factory=FaultPlan)
    adapters: tuple[AdapterFlag, ...] | None = None
    sleep_mode: bool = False
    kv_events: KvEventsConfig = field(default_factory=KvEventsConfig)
    fakes: FakeMetrics | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsInvalid("A simulated server needs at least one model: set models.")
        if not all(self.models) or not all(self.api_keys):
            raise SettingsInvalid("Names of models and keys of the simulator can't be empty.")
        self._check_durations()
        self._check_adapters()
        if not 1 <= self.output_tokens <= USUAL_TOKENS_MAX:
            raise SettingsInvalid(
                f"Set the simulator's output_tokens from 1 to {USUAL_TOKENS_MAX}."
            )
        if self.in_flight_max is not None and self.in_flight_max < 1:
            raise SettingsInvalid("Set the simulator's in_flight_max to 1 or more, or leave it.")
        for name in ("queued_requests_max", "queued_tokens_max"):
            bound = getattr(self, name)
            if bound is not None and bound < 0:
                raise SettingsInvalid(f"The simulator's {name} can't be negative.")

    def _check_durations(self) -> None:
        names = ("latency_seconds", "transfer_seconds", "transfer_token_seconds", "startup_seconds")
        for name in names:
            seconds: float = getattr(self, name)
            if not 0 <= seconds < float("inf"):
                raise SettingsInvalid(f"The simulator's {name} can't be {seconds:g}.")

    def _check_adapters(self) -> None:
        names = [flag.name for flag in self.adapters or ()]
        if len({*names, *self.models}) < len(names) + len(set(self.models)):
            raise SettingsInvalid(
                "The simulator's adapters need names of their own, other than the models'."
            )
        if len(names) > ADAPTERS_MAX:
            raise SettingsInvalid(f"The simulator takes {ADAPTERS_MAX} adapters at most.")

    def transfer_ps(self, tokens: int) -> int:
        """Return how long the keys and values of `tokens` tokens take to arrive, in picoseconds."""
        return round((self.transfer_seconds + self.transfer_token_seconds * tokens) * PICOSECONDS)
