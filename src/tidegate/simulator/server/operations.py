"""What operators ask of a server beside answers: adapters, caches, sleep, and made-up metrics."""

from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
import orjson

from tidegate.simulator.kv_events.config import KvEventsConfig
from tidegate.simulator.kv_events.feed import RANK
from tidegate.simulator.metrics.fake import FakeMetrics, Fakes
from tidegate.simulator.metrics.server import ServerMetrics
from tidegate.simulator.metrics.vllm import EngineMetrics
from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.server.driver import Driver
from tidegate.simulator.server.models import Models
from tidegate.simulator.server.sleep_mode import SleepMode
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.call import Call
from tidegate.simulator.web.replies import TEXT

Handler = Callable[[Call], None]


class Operated(Protocol):
    """What is operated."""

    settings: SimulatorSettings
    driver: Driver
    metrics: EngineMetrics
    server_metrics: ServerMetrics
    models: Models
    fakes: Fakes


class Operations:
    """The operators' routes of one server. `kv_sources` is where its KV events go, if anywhere."""

    def __init__(self, operated: Operated, kv_sources: KvEventsConfig | None) -> None:
        self._operated = operated
        self._sources = {} if kv_sources is None else {str(RANK): kv_sources}
        self.rest = SleepMode(operated.driver, operated.metrics, operated.server_metrics, _tell)

    def routes(self) -> Mapping[str, Mapping[str, Handler]]:
        """Return the handlers by path and method; what is not switched on is not there."""
        rest, settings = self.rest, self._operated.settings
        found: dict[str, Mapping[str, Handler]] = {
            "/kv_event_sources": {"GET": self._tell_sources},
            "/reset_prefix_cache": {"POST": self._reset_prefix_cache},
            "/admin/metrics": {"GET": self._tell_fakes, "POST": self._set_fakes},
        }
        if settings.sleep_mode:
            found["/sleep"] = {"POST": rest.sleep}
            found["/wake_up"] = {"POST": rest.wake_up}
            found["/is_sleeping"] = {"GET": rest.is_sleeping}
        if settings.adapters is not None:
            found["/v1/load_lora_adapter"] = {"POST": self._load}
            found["/v1/unload_lora_adapter"] = {"POST": self._unload}
        return found

    def _load(self, call: Call) -> None:
        call.answer(200, self._operated.models.load(call.body).encode(), kind=TEXT)

    def _unload(self, call: Call) -> None:
        call.answer(200, self._operated.models.unload(call.body).encode(), kind=TEXT)

    def _tell_sources(self, call: Call) -> None:
        call.answer(200, msgspec.json.encode(self._sources))

    def _reset_prefix_cache(self, call: Call) -> None:
        asked = parse_qs(call.query).get("reset_running_requests", ["false"])[-1]
        is_done = self._operated.driver.forget(preempts=asked.lower() in {"true", "1"})
        _tell(call, {"success": is_done})

    def _tell_fakes(self, call: Call) -> None:
        call.answer(200, msgspec.json.encode({"fake": self._operated.fakes.shown}))

    def _set_fakes(self, call: Call) -> None:
        try:
            shown = msgspec.json.decode(call.body, type=FakeMetrics | None)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"These metrics are not acceptable: {error}") from error
        self._operated.fakes.replace(shown)
        self._tell_fakes(call)


def _tell(call: Call, value: object) -> None:
    call.answer(200, orjson.dumps(value))
