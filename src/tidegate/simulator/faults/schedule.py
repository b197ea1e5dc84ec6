"""Faults by the clock: in a window of time, a share of the requests goes wrong in one way.

Whether a request does is drawn from the seed, the window's place and the request's number in the
window: the same requests in the same order, the same faults.
"""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import yaml

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.answers.seeded import digest
from tidegate.simulator.faults.per_request import RequestFault

WINDOWS_MAX = 1_000
_SHARES = 1 << 32


class FaultWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault of `rate` of the requests, from one second after the start to another (or on)."""

    fault: RequestFault
    rate: float = 1.0
    from_seconds: float = 0.0
    until_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError("rate is from 0 to 1")
        until = math.inf if self.until_seconds is None else self.until_seconds
        if not 0 <= self.from_seconds < until:
            raise ValueError("from_seconds is from 0 to until_seconds")


class FaultPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The windows, of which the first that hits a request decides, and the seed of the draws."""

    windows: list[FaultWindow] = []
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.windows) > WINDOWS_MAX:
            raise ValueError(f"there are at most {WINDOWS_MAX} windows")


class FaultSchedule:
    """Says of each request whether it goes wrong. Times count from the plan's start."""

    def __init__(self, plan: FaultPlan, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.replace(plan)

    def replace(self, plan: FaultPlan) -> None:
        """Begin again with another plan."""
        self.plan = plan
        self._start = self._clock()
        self._asked = [0] * len(plan.windows)

    def draw(self) -> RequestFault | None:
        """Return what goes wrong with the request that comes now, or None."""
        if not self.plan.windows:
            return None
        now = self._clock() - self._start
        for place, window in enumerate(self.plan.windows):
            until = window.until_seconds
            if now < window.from_seconds or (until is not None and now >= until):
                continue
            number = self._asked[place] = self._asked[place] + 1
            if digest(self.plan.seed, place, number) % _SHARES < window.rate * _SHARES:
                return window.fault
        return None

    def shown(self) -> bytes:
        """Return the plan as JSON, with how many requests each window has seen."""
        now = self._clock() - self._start
        return msgspec.json.encode(
            {"seconds": round(now, 3), "asked": self._asked, **msgspec.to_builtins(self.plan)}
        )


plan_from = msgspec.json.Decoder(FaultPlan).decode


def plan_from_file(path: Path) -> FaultPlan:
    """Return a plan from a YAML file.

    Raises:
        SettingsInvalid: the file can't be read, or is no plan.
    """
    try:
        found = yaml.safe_load(path.read_text())
        return msgspec.convert({} if found is None else found, FaultPlan)
    except OSError as error:
        raise SettingsInvalid(f"--faults: can't read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"--faults: {path} is not YAML.") from error
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"--faults: {path} is not acceptable: {error}.") from error
