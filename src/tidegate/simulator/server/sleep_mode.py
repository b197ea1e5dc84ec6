"""Sleep mode: a sleeping server accepts requests and answers them once it is awake."""

from collections.abc import Callable
from urllib.parse import parse_qs

from tidegate.simulator.metrics.server import ServerMetrics
from tidegate.simulator.metrics.vllm import SLEEP_STATES, EngineMetrics
from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.server.driver import Driver
from tidegate.simulator.web.call import Call

LEVEL_MAX = 2
MODES = ("abort", "wait", "keep")
TAGS = frozenset({"weights", "kv_cache"})
_SCHEDULING = "scheduling"


class SleepMode:
    """The state of sleep of one server.

    Attributes:
        sleeping_tags: what is not in the GPU's memory now.
    """

    def __init__(
        self,
        driver: Driver,
        metrics: EngineMetrics,
        operations: ServerMetrics,
        answer: Callable[[Call, object], None],
    ) -> None:
        self.sleeping_tags: frozenset[str] = frozenset()
        self._driver = driver
        self._metrics = metrics
        self._answer = answer
        self._lying_down: list[tuple[Call, int]] = []
        self._operations = operations
        self._falling: list[Callable[[], None]] = []

    def sleep(self, call: Call) -> None:
        """Fall asleep at a level: 0 only pauses, 1 and 2 forget the cache."""
        query = parse_qs(call.query)
        level = _level(query.get("level", ["1"])[-1])
        mode = query.get("mode", [MODES[0]])[-1]
        if mode not in MODES:
            raise _unfit("mode", f"Input should be {', '.join(MODES)}", mode)

        self._lying_down.append((call, level))
        self._falling.append(self._operations.operation("sleep"))
        if mode == "wait":
            self._driver.pause(then=self._lie_down)
        else:
            self._driver.pause(aborts=mode == "abort", freezes=mode == "keep")
            self._lie_down()

    def _lie_down(self) -> None:
        lying, self._lying_down = self._lying_down, []
        for call, level in lying:
            if level:
                self._driver.forget()
                self.sleeping_tags = TAGS
            self._metrics.sleep_state = SLEEP_STATES[level] if level else ""
            self._answer(call, {"status": "sleeping", "level": level})
        self._have_fallen()

    def _have_fallen(self) -> None:
        falling, self._falling = self._falling, []
        for ended in falling:
            ended()

    def wake_up(self, call: Call) -> None:
        """Wake up, or bring back what the tags say; only who has everything goes on."""
        ended = self._operations.operation("wake")
        tags = parse_qs(call.query).get("tags")
        wanted = None if tags is None else {tag for tag in tags if tag != _SCHEDULING}
        if wanted is None:
            self.sleeping_tags = frozenset()
        elif wanted <= self.sleeping_tags:
            self.sleeping_tags -= wanted
        is_awake = not self.sleeping_tags
        if is_awake:
            lying, self._lying_down = self._lying_down, []
            for other, level in lying:
                self._answer(other, {"status": "awake", "level": level})
            self._have_fallen()
            self._driver.resume()
            self._metrics.sleep_state = SLEEP_STATES[0]
        self._answer(call, {"status": "awake" if is_awake else "sleeping", "tags": tags})
        ended()

    def is_sleeping(self, call: Call) -> None:
        """Return whether it sleeps."""
        asleep = self._driver.is_paused or bool(self.sleeping_tags)
        self._answer(call, {"is_sleeping": asleep})


def _level(text: str) -> int:
    if text.startswith("-") and text[1:].isdecimal():
        raise _unfit("level", "Input should be greater than or equal to 0", text)
    if not text.isdecimal():
        raise _unfit("level", "Input should be a valid integer", text)
    if int(text[:9]) > LEVEL_MAX:
        raise _unfit("level", f"Input should be less than or equal to {LEVEL_MAX}", text)
    return int(text)


def _unfit(name: str, why: str, value: str) -> Refused:
    return Refused(
        f"1 validation error:\n  {{'loc': 'query.{name}', 'msg': '{why}', 'input': {value!r}}}",
        kind="Bad Request",
        param=f"query.{name}",
    )
