"""The model servers: slow, sick, silent or flaky, as likely as the odds of the world say."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from typing_extensions import override

from testkit.world.broken import Broken
from testkit.world.environment import FAULTS_SECONDS, Environment
from testkit.world.exposure import SETTLED_SECONDS, Exposure, Line, Sent, worst
from testkit.world.host import Host
from testkit.world.odds import Odds
from testkit.world.ports import HostUpstream
from tidegate.domain.errors import (
    ConnectFailed,
    ReplyBroken,
    SandboxDied,
    SandboxNotStarted,
    TimedOut,
)
from tidegate.sandbox.base import Sandbox
from tidegate.upstreams.base import Call, Reply, Upstream

T = TypeVar("T")
SICK_SECONDS_MAX = 20.0
SLOW_SECONDS = 60.0
DEAD_UNTIL = FAULTS_SECONDS + 240.0
OK = 200
BAD_REQUEST = 400
_FINAL = frozenset({OK, BAD_REQUEST})


class _Message(msgspec.Struct):
    content: str


class Request(msgspec.Struct):
    """What the server reads of a call. The first message names the line."""

    model: str
    messages: list[_Message]


class WatchedUpstream(Upstream):
    """What a processor calls: notes when it sends a line, and what it receives for it.

    A poisoned line kills the process at once.
    """

    def __init__(
        self,
        host: Host,
        serve: Callable[[Call], Awaitable[Reply]],
        exposure: Exposure,
        ground: Environment,
        crowds: dict[str, set[Sent]],
    ) -> None:
        self._host = host
        self._crowds = crowds
        self._way = HostUpstream(host, serve)
        self._exposure = exposure
        self._ground = ground

    @override
    async def send(self, call: Call) -> Reply:
        batch_id, name = line_of(call)
        if name in self._ground.poison and self._host.alive:
            self._complain_of(lambda: self._exposure.died_of((batch_id, name)))
            await self._host.crash(f"of {name}")
        return await self.carry(call, handed_over_at=self._ground.clock.now())

    async def carry(self, call: Call, *, handed_over_at: float) -> Reply:
        """Send a call, sent by its processor at this time of the ledger."""
        crowd = self._crowds.setdefault(msgspec.json.decode(call.body, type=Request).model, set())
        sent = self._complain_of(
            lambda: self._exposure.send(
                line_of(call), calm_since=self._calm_since(), now=handed_over_at
            )
        )
        final = False
        crowd.add(sent)
        try:
            self._complain_of(lambda: self._check_limit(crowd))
            reply = await self._way.send(call)
            final = reply.status in _FINAL and reply.body != _NOT_JSON
            return reply
        finally:
            crowd.discard(sent)
            self._exposure.land(sent, final=final)

    @override
    async def aclose(self) -> None:
        return

    def _check_limit(self, crowd: set[Sent]) -> None:
        """Hold all processors together to the limit of the deployment.

        Members that come or go are known to all after a moment, and requests sent before that may
        still be in flight.
        """
        ground = self._ground
        if ground.calm_since is None:
            return
        settled_at = max(ground.calm_since, ground.settled_at, ground.living.same_since)
        known_since = settled_at + SETTLED_SECONDS
        count = sum(1 for sent in crowd if sent.at > known_since)
        if count > ground.endpoint_limit:
            raise Broken(f"{count} requests at one endpoint, {ground.endpoint_limit} are allowed")

    def _calm_since(self) -> float | None:
        """Return since when this processor has had no trouble, which a leap of all clocks is."""
        since = self._ground.calm_since
        return None if since is None else max(since, self._host.settled_at, self._ground.leapt_at)

    def _complain_of(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except Broken as error:
            # The dispatcher takes a stray error for a broken reply and goes on.
            self._ground.complaints.note(error)
            raise


class SimulatedSandbox(Sandbox):
    """A child process: it dies of poisoned lines, and once of some good ones."""

    def __init__(self, upstream: WatchedUpstream, host: Host, ground: Environment) -> None:
        self._upstream = upstream
        self._host = host
        self._ground = ground

    @override
    async def send(self, call: Call) -> Reply:
        rng, odds = self._host.rng, self._host.odds
        _, name = line = line_of(call)
        handed_over_at = self._ground.clock.now()
        await asyncio.sleep(rng.uniform(0.0, odds.latency_seconds_max))
        if rng.random() < odds.child_not_started:
            raise SandboxNotStarted("There is no child process to be had (simulated).")
        unlucky = line not in self._ground.unlucky and rng.random() < odds.child_dies
        if name in self._ground.poison or unlucky:
            self._ground.unlucky.add(line)
            self._ground.report.child_deaths += 1
            self._host.note(f"a child dies of {name}")
            raise SandboxDied(f"A child process died of {name} (simulated).")
        return await self._upstream.carry(call, handed_over_at=handed_over_at)

    @override
    async def aclose(self) -> None:
        return


class ModelServer:
    """One server for all models of a world. `dead_model` is away until `DEAD_UNTIL`."""

    def __init__(self, ground: Environment) -> None:
        self._ground = ground
        self._chance: random.Random = ground.fork()
        self._sick_until = 0.0
        self.dead_model: str | None = None
        if self._chance.random() < ground.odds.model_dead:
            self.dead_model = self._chance.choice(["slow", "flaky"])
        self._exposures: dict[str, Exposure] = {}
        self._crowds: dict[str, set[Sent]] = {}

    def seen_from(self, host: Host, owner: str, *, exposed_lines_max: int) -> WatchedUpstream:
        """Return the server as one processor sees it, which must not expose more than this."""
        exposure = Exposure(self._ground.account, owner, exposed_lines_max)
        self._exposures[owner] = exposure
        return WatchedUpstream(host, self._serve, exposure, self._ground, self._crowds)

    @property
    def exposed_lines_max(self) -> int:
        """Return the most lines that any one crash would have repeated."""
        return worst(self._exposures)

    async def _serve(self, call: Call) -> Reply:
        self._ground.report.requests += 1
        return await self._answer(msgspec.json.decode(call.body, type=Request))

    async def _answer(self, request: Request) -> Reply:
        rng, loop = self._chance, asyncio.get_running_loop()
        odds = Odds() if self._ground.calm else self._ground.odds
        if request.model == self.dead_model and loop.time() < DEAD_UNTIL:
            raise ConnectFailed("This model is not there (simulated).")
        await asyncio.sleep(rng.uniform(0.01, 4.0 if request.model == "slow" else 0.4))
        if request.model == "slow" and rng.random() < odds.upstream_slow:
            await asyncio.sleep(SLOW_SECONDS)
        if self._ground.calm:
            return _ok(request)
        if loop.time() < self._sick_until:
            raise ConnectFailed("The model server is down (simulated).")
        if rng.random() < odds.upstream_sick:
            self._sick_until = loop.time() + rng.uniform(0.0, SICK_SECONDS_MAX)
            raise ReplyBroken("The model server went away (simulated).")
        if request.model == "flaky" and rng.random() < odds.upstream_flaky:
            return rng.choice(_BAD_REPLIES)
        if rng.random() < odds.upstream_silent:
            raise TimedOut("No reply came in time (simulated).", phase="total")
        return _ok(request)


def line_of(call: Call) -> Line:
    """Return which line of which batch a call carries."""
    request = msgspec.json.decode(call.body, type=Request)
    return "batch_" + call.headers["x-request-id"].split("_")[2], request.messages[0].content


_NOT_JSON = b'{"half": '
_BAD_REPLIES = [
    Reply(status=500, headers={}, body=b'{"error":{"message":"simulated"}}'),
    Reply(status=429, headers={"retry-after": "1"}, body=b"{}"),
    Reply(status=503, headers={}, body=b"loading"),
    Reply(status=400, headers={}, body=b'{"error":{"message":"simulated"}}'),
    Reply(status=200, headers={}, body=_NOT_JSON),
]


def _ok(request: Request) -> Reply:
    body = json.dumps(
        {"model": request.model, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    )
    return Reply(status=OK, headers={}, body=body.encode())
