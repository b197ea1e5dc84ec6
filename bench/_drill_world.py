"""What each drill works in: a folder, an upstream that counts, and Tidegate's processes."""

import json
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from _drill_children import Child, Children, DrillFailed
from _drill_client import Batch, Reading, User, read_results

GC_SECONDS_MAX = 60.0
BATCH_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05
LOCKED = "locked for too long"
UPSTREAM = Path(__file__).with_name("_drill_upstream.py")


@dataclass
class Findings:
    """What a drill saw: its figures, and each expectation that was not met, by name."""

    figures: dict[str, object] = field(default_factory=dict)
    unmet: list[str] = field(default_factory=list)
    lost: int = 0
    duplicated: int = 0

    def expect(self, met: bool, what: str) -> None:  # noqa: FBT001 -- reads as a sentence
        if not met:
            self.unmet.append(what)

    def read(self, user: User, batch: Batch, names: Sequence[str]) -> Reading:
        """Read the results of a batch, and hold them to one line for each line of its input."""
        reading = read_results(user, batch, names)
        self.lost += reading.lost
        self.duplicated += reading.duplicated
        self.unmet += reading.problems
        self.expect(reading.lost == 0, f"{batch.id}: {reading.lost} lines lost")
        self.expect(reading.duplicated == 0, f"{batch.id}: {reading.duplicated} lines duplicated")
        return reading


@dataclass(frozen=True)
class Served:
    """A running `tidegate serve`."""

    child: Child
    url: str
    operators_url: str

    def ready(self) -> tuple[int, str]:
        """Return status and text of `/ready`."""
        try:
            with urllib.request.urlopen(f"{self.operators_url}/ready", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


@dataclass(frozen=True)
class Upstream:
    """The model server of the drills."""

    child: Child
    url: str

    def counts(self, prefix: str = "") -> "Counts":
        with urllib.request.urlopen(f"{self.url}/counts?{prefix}", timeout=10) as reply:
            counts = json.loads(reply.read())
        return Counts(
            asked=counts["asked"],
            requests=counts["requests"],
            repeated=counts["repeated"],
            in_flight=counts["in_flight"],
        )

    def set_delay(self, milliseconds: float) -> None:
        urllib.request.urlopen(f"{self.url}/delay?{milliseconds}", timeout=10).close()


@dataclass(frozen=True)
class Counts:
    """What the upstream was asked for."""

    asked: int
    requests: int
    repeated: Mapping[str, int]
    in_flight: int

    @property
    def repeats(self) -> int:
        return self.requests - self.asked


@dataclass(frozen=True)
class Plan:
    """How large the drills are, and the chance that they take."""

    quick: bool
    seed: int
    mounts: bool = True

    def pick(self, quick: int, full: int) -> int:
        return quick if self.quick else full

    def chance(self, drill: str) -> random.Random:
        return random.Random(f"{self.seed}{drill}")


class World:
    """One drill's processes and files."""

    def __init__(
        self, folder: Path, children: Children, upstream: Upstream, settings: Mapping[str, object]
    ) -> None:
        self.children = children
        self.upstream = upstream
        self.data = folder / "data"
        self._folder = folder
        self._users: list[User] = []
        self._config = folder / "tidegate.yaml"
        tree = _tree({"upstream.url": upstream.url, "data_dir": str(self.data), **settings})
        # JSON is YAML.
        self._config.write_text(json.dumps(tree))

    def close(self) -> None:
        for user in self._users:
            user.close()

    def serve(self, processors: int, *, prefix: tuple[str, ...] = ()) -> Served:
        """Start `tidegate serve`, and wait until it is ready."""
        ports = ["--port", "0", "--observability-port", "0"]
        child = self.children.start(
            "serve",
            [*self._command("serve"), *ports, "--processors", str(processors)],
            prefix=prefix,
        )
        ready_line = child.wait_for("tidegate is ready: ")
        url = ready_line.partition("ready: ")[2].partition("/v1,")[0]
        operators = ready_line.partition("health and metrics ")[2].partition(",")[0].strip()
        return Served(child, url, operators)

    def start_processor(self) -> Child:
        """Start `tidegate processor`; it may not work yet."""
        return self.children.start("processor", self._command("processor"))

    def processors(self, count: int) -> list[Child]:
        """Start this many processors, and wait until all of them work."""
        started = [self.start_processor() for _ in range(count)]
        for child in started:
            wait_for_processor(child)
        return started

    def collect(self) -> bool:
        """Run `tidegate gc` once, to its end; return whether it could open the ledger.

        Raises:
            DrillFailed: it failed in another way.
        """
        child = self.children.run("gc", self._command("gc"), GC_SECONDS_MAX)
        if child.process.returncode == 0:
            return True
        if LOCKED in child.log_text():
            return False
        raise DrillFailed(f"`tidegate gc` failed: {child.log_text()}")

    def user(self, served: Served) -> User:
        user = User(served.url)
        self._users.append(user)
        return user

    def wait(self, user: User, batch_id: str, seconds: float = BATCH_SECONDS_MAX) -> Batch:
        """Wait for the end of a batch.

        Raises:
            DrillFailed: it did not end in time, or a process ended by itself.
        """
        deadline = time.monotonic() + seconds
        while not (batch := user.get(batch_id)).has_ended:
            self.children.check()
            if time.monotonic() > deadline:
                raise DrillFailed(f"Not ended within {seconds:.0f} s: {batch}.")
            time.sleep(POLL_SECONDS)
        return batch

    def _command(self, name: str) -> list[str]:
        return ["-m", "tidegate", name, "--config", str(self._config)]


def wait_for_processor(child: Child) -> None:
    child.wait_for("tidegate processor is ready: ")


def _tree(dotted: Mapping[str, object]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name, value in dotted.items():
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            inner = place.setdefault(group, {})
            assert isinstance(inner, dict)
            place = inner
        place[last] = value
    return tree


@contextmanager
def running_upstream(folder: Path) -> Iterator[Upstream]:
    with Children(folder) as children:
        child = children.start("upstream", [str(UPSTREAM)])
        yield Upstream(child, child.wait_for("ready ").split()[1])


@contextmanager
def world(
    folder: Path, name: str, upstream: Upstream, settings: Mapping[str, object]
) -> Iterator[World]:
    """Give a drill a folder and processes of its own; both are gone after the block."""
    own = folder / name
    own.mkdir()
    with Children(own) as children:
        made = World(own, children, upstream, settings)
        try:
            yield made
        finally:
            made.close()


def say(drill: str, text: str) -> None:
    """Show that a drill gets on."""
    print(f"[{time.strftime('%H:%M:%S')}] {drill}: {text}", file=sys.stderr, flush=True)
