"""A whole deployment in one process and in virtual time: processors, a model server, a user.

Everything is drawn from one seed: the batches, the faults, the interleaving. The real processor
runs in it unchanged. First faults happen; then they stop, and every batch must end.
"""

import asyncio
import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from tidegate.blobs.base import BlobStore
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import Conflict, ConnectFailed, ReplyBroken, TimedOut
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.shard import Verdict
from tidegate.processor.endpoints import Endpoint, PauseSettings, Routes
from tidegate.processor.keeper import TaskKeeper
from tidegate.processor.observer import Observer
from tidegate.processor.service import Processor, Tools
from tidegate.processor.settings import Claims, Commits, Ends, Planning, Settings, Valves
from tidegate.runtime.identity import SeededIds
from tidegate.runtime.limiter import AimdSettings
from tidegate.signals.base import Signals
from tidegate.signals.memory import MemorySignals
from tidegate.stores.base import ClaimedShards, Commit, Store, Want
from tidegate.stores.memory import MemoryStore
from tidegate.testing.faults import Host, HostBlobs, HostSignals, Odds, behind
from tidegate.testing.loop import LoopClock
from tidegate.testing.shadow import Broken, Shadow
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.catalogue import Catalogue
from tidegate.upstreams.memory import MemoryUpstream

TENANTS = ("default", "other")
ENDPOINT = "/v1/chat/completions"
FAULTS_SECONDS = 60.0
ENDS_WITHIN_SECONDS = 1_800.0
_MODELS = ("fast", "slow", "flaky", "nobody")
_LEASE_SECONDS = 15.0
_LONG_WINDOW_SECONDS = 86_400.0


class MakeStore(Protocol):
    """Opens the ledger of a world."""

    def __call__(self, clock: LoopClock) -> Store:
        """Return a ledger that reads this clock."""
        ...


@dataclass(slots=True)
class Report:
    """What happened in one world."""

    seed: int
    lines: int = 0
    requests: int = 0
    crashes: int = 0
    commits_refused: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


class World:
    """One seeded deployment. `run` raises `Broken` where a promise was not kept."""

    def __init__(self, seed: int, *, make_store: MakeStore = MemoryStore) -> None:
        self._chance = random.Random(seed)
        self._clock = LoopClock(asyncio.get_running_loop())
        self._odds = Odds.swarm(self._chance)
        self._ids = SeededIds(random.Random(self._chance.getrandbits(64)))
        self._shadow = Shadow()
        self._store = watched(make_store(self._clock), self._shadow)
        self._blobs: BlobStore = MemoryBlobs(appends=self._chance.random() < 0.5)  # noqa: PLR2004 - a coin
        self._signals: Signals = MemorySignals()
        self._upstream = MemoryUpstream(self._answer)
        self._sick_until = 0.0
        self._calm = False
        self._hosts: list[Host] = []
        self._inputs: dict[str, list[str]] = {}
        self._asked_to_cancel: set[str] = set()
        self.report = Report(seed)

    async def run(self) -> Report:
        """Live through the faults, then see every batch end well."""
        async with self._store:
            batches = await self._live()
            for batch in batches:
                await self._check(batch)
        self.report.commits_refused = self._shadow.repeats_refused
        return self.report

    async def _live(self) -> list[Batch]:
        async with asyncio.TaskGroup() as group:
            machines = [
                group.create_task(self._machine(number), name=f"machine {number}")
                for number in range(2)
            ]
            batches = [await self._create() for _ in range(self._chance.randint(1, 3))]
            users = [
                group.create_task(self._user(batch), name=f"user of {batch.id}")
                for batch in batches
            ]
            await asyncio.sleep(FAULTS_SECONDS)
            self._calm = True
            for host in self._hosts:
                host.calm()
            await self._ends(batches)
            for task in [*machines, *users]:
                task.cancel()
        return batches

    # The user

    async def _create(self) -> Batch:
        chance = self._chance
        count = chance.randint(1, 40)
        names = [f"line-{number}" for number in range(count)]
        data = b"".join(_input_line(name, chance.choice(_MODELS)) for name in names)
        file_id, blob = self._ids.make("file-"), f"uploads/{self._ids.make('up_')}"
        tenant = chance.choice(TENANTS)
        await self._store.begin_upload(blob, tenant=tenant, blob=blob, at=self._clock.now())
        await self._blobs.put(blob, data)
        file = File(
            id=file_id,
            tenant=tenant,
            filename="input.jsonl",
            purpose=Purpose.BATCH,
            bytes=len(data),
            created_at=self._clock.now(),
        )
        await self._store.finish_upload(blob, file, [Part(blob=blob, offset=0, length=len(data))])
        window = chance.uniform(5.0, 90.0) if chance.random() < 0.2 else _LONG_WINDOW_SECONDS  # noqa: PLR2004 - one in five is short
        now = self._clock.now()
        batch = await self._store.create_batch(
            Batch(
                id=self._ids.make("batch_"),
                tenant=tenant,
                endpoint=ENDPOINT,
                input_file_id=file_id,
                completion_window="24h",
                status=Status.VALIDATING,
                created_at=now,
                expires_at=now + window,
            )
        )
        self._inputs[batch.id] = names
        self.report.lines += count
        if chance.random() < 0.3:  # noqa: PLR2004 - some delete their input at once
            await self._store.delete_file(tenant, file_id)
        return batch

    async def _user(self, batch: Batch) -> None:
        """Watch a batch, and perhaps cancel it at some moment."""
        chance = self._chance
        cancel_at = chance.uniform(0.0, FAULTS_SECONDS) if chance.random() < 0.3 else None  # noqa: PLR2004 - some do
        while True:
            await asyncio.sleep(chance.uniform(0.0, 3.0))
            self._shadow.saw(await self._store.get_batch(batch.tenant, batch.id))
            if cancel_at is not None and asyncio.get_running_loop().time() >= cancel_at:
                cancel_at = None
                try:
                    seen = await self._store.cancel_batch(
                        batch.tenant, batch.id, at=self._clock.now()
                    )
                except Conflict:
                    continue
                self._shadow.saw(seen)
                self._asked_to_cancel.add(batch.id)

    # The machines

    async def _machine(self, number: int) -> None:
        """Start a processor; when it crashes, start another one after a while."""
        while True:
            host = Host(
                f"machine {number}",
                random.Random(self._chance.getrandbits(64)),
                Odds() if self._calm else self._odds,
                lease_seconds=_LEASE_SECONDS,
            )
            self._hosts = [*(other for other in self._hosts if other.alive), host]
            processor = self._processor(host)
            async with asyncio.TaskGroup() as group:
                host.task = group.create_task(processor.run(), name=host.name)
                if self._chance.random() < 0.2:  # noqa: PLR2004 - some are restarted by hand
                    group.create_task(self._restart(host, processor), name="restart")
            if not host.alive:
                self.report.crashes += 1
            await asyncio.sleep(self._chance.uniform(0.0, 5.0))

    async def _restart(self, host: Host, processor: Processor) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, FAULTS_SECONDS))
        if not host.alive:
            return
        processor.stop()
        if self._chance.random() < 0.5:  # noqa: PLR2004 - a coin
            await asyncio.sleep(self._chance.uniform(0.0, 2.0))
            if host.alive:
                processor.abort()

    def _processor(self, host: Host) -> Processor:
        settings = self._settings()
        store = behind(self._store, host)
        limits = AimdSettings(start=4, min=1, max=8)
        pauses = PauseSettings(seconds_min=0.2, seconds_max=5.0, starting_seconds=5.0)
        routes = Routes(
            by_model={
                name: Endpoint(name, self._upstream, limits=limits, pauses=pauses)
                for name in _MODELS[:-1]
            }
        )
        return Processor(
            settings,
            Tools(
                store=store,
                blobs=HostBlobs(self._blobs, host),
                signals=HostSignals(self._signals, host),
                routes=routes,
                clock=self._clock,
                ids=self._ids,
                chance=random.Random(self._chance.getrandbits(64)),
                keeper=TaskKeeper(settings.claims, store),
                observer=Observer(),
                make_scratch=io.BytesIO,
                models=Catalogue({}, None),
                owner=self._ids.make("proc_"),
            ),
        )

    def _settings(self) -> Settings:
        chance = self._chance
        return Settings(
            claims=Claims(lease_seconds=_LEASE_SECONDS),
            valves=Valves(
                open_shards_max=chance.randint(1, 6),
                in_flight_max=chance.randint(1, 8),
                uncommitted_lines_max=chance.randint(1, 20),
            ),
            planning=Planning(
                shard_lines_max=chance.randint(1, 8), run_lines_max=chance.randint(2, 50)
            ),
            commits=Commits(lines_max=chance.randint(1, 10)),
            ends=Ends(drain_seconds=chance.choice([0.0, 1.0, 30.0]), stop_grace_seconds=5.0),
        )

    # The model server

    async def _answer(self, call: Call) -> Reply:
        chance, loop = self._chance, asyncio.get_running_loop()
        self.report.requests += 1
        request = msgspec.json.decode(call.body, type=_Request)
        await asyncio.sleep(chance.uniform(0.01, 4.0 if request.model == "slow" else 0.4))
        if request.model == "slow" and chance.random() < 0.05 and not self._calm:  # noqa: PLR2004 - a few
            await asyncio.sleep(60.0)
        if self._calm:
            return _ok(request)
        if loop.time() < self._sick_until:
            raise ConnectFailed("The model server is down (simulated).")
        draw = chance.random()
        if draw < 0.02:  # noqa: PLR2004 - now and then the server goes down
            self._sick_until = loop.time() + chance.uniform(0.0, 20.0)
            raise ReplyBroken("The model server went away (simulated).")
        if request.model == "flaky" and draw < 0.5:  # noqa: PLR2004 - every second time
            return chance.choice(_BAD_REPLIES)
        if draw > 0.97:  # noqa: PLR2004 - now and then nothing comes
            raise TimedOut("No reply came in time (simulated).", phase="total")
        return _ok(request)

    # What must be true

    async def _ends(self, batches: Sequence[Batch]) -> None:
        """Wait until every batch is terminal; with no more faults that must not take long."""
        try:
            async with asyncio.timeout(ENDS_WITHIN_SECONDS):
                for batch in batches:
                    await self._end_of(batch)
        except TimeoutError:
            left = [await self._store.get_batch(batch.tenant, batch.id) for batch in batches]
            raise Broken(f"not ended without faults: {left}") from None

    async def _end_of(self, batch: Batch) -> None:
        while True:
            seen = await self._store.get_batch(batch.tenant, batch.id)
            if seen.is_terminal:
                return
            await asyncio.sleep(1.0)

    async def _check(self, created: Batch) -> None:
        batch = await self._store.get_batch(created.tenant, created.id)
        self._shadow.saw(batch)
        self.report.statuses[batch.status.value] += 1
        if not batch.is_planned:
            if batch.counts.total or batch.output_bytes or batch.error_bytes:
                raise Broken(f"an unplanned batch has lines or files: {batch}")
            return
        results = await self._read(batch, batch.output_file_id if batch.output_bytes else None)
        errors = await self._read(batch, batch.error_file_id if batch.error_bytes else None)
        self._check_codes(batch, errors)
        good = [line.custom_id for line in results]
        bad = [line.custom_id for line in errors]
        expected = Counter(self._inputs[batch.id])
        if Counter([*good, *bad]) != expected:
            raise Broken(f"lines lost or doubled: {expected - Counter([*good, *bad])}")
        if (len(good), len(bad)) != (batch.counts.completed, batch.counts.failed):
            raise Broken(f"the counts are not the lines: {len(good)}, {len(bad)}, {batch.counts}")
        if batch.usage.output_tokens != batch.counts.completed:
            raise Broken(f"the usage is not that of the lines: {batch.usage}")
        if batch.status is Status.CANCELLED and batch.id not in self._asked_to_cancel:
            raise Broken("a batch was cancelled that nobody cancelled")

    def _check_codes(self, batch: Batch, errors: Sequence["_Result"]) -> None:
        """Hold the reason that each line gives to the way in which the batch ended."""
        codes = Counter(line.error.code for line in errors if line.error is not None)
        if codes["batch_expired"] != batch.counts.expired:
            raise Broken(f"{codes} and {batch.counts} tell of different ends")
        if codes["batch_cancelled"] and batch.status is not Status.CANCELLED:
            raise Broken(f"lines of a batch that is {batch.status} say that it was cancelled")

    async def _read(self, batch: Batch, file_id: str | None) -> list["_Result"]:
        if file_id is None:
            return []
        file, parts = await self._store.get_parts(batch.tenant, file_id)
        pieces = [await self._blobs.read(part.blob, part.offset, part.length) for part in parts]
        data = b"".join(pieces)
        if len(data) != file.bytes:
            raise Broken(f"{file_id} has {len(data)} bytes, the ledger says {file.bytes}")
        return [msgspec.json.decode(line, type=_Result) for line in data.splitlines()]


class _Request(msgspec.Struct):
    model: str


class _ErrorOf(msgspec.Struct):
    code: str


class _Result(msgspec.Struct):
    custom_id: str
    error: _ErrorOf | None


_BAD_REPLIES = [
    Reply(status=500, headers={}, body=b'{"error":{"message":"simulated"}}'),
    Reply(status=429, headers={"retry-after": "1"}, body=b"{}"),
    Reply(status=503, headers={}, body=b"loading"),
    Reply(status=400, headers={}, body=b'{"error":{"message":"simulated"}}'),
    Reply(status=200, headers={}, body=b"not JSON"),
]


def _ok(request: _Request) -> Reply:
    body = json.dumps(
        {"model": request.model, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    )
    return Reply(status=200, headers={}, body=body.encode())


def _input_line(name: str, model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": name}]}
    line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line).encode() + b"\n"


def watched(store: Store, shadow: Shadow) -> Store:
    """Let a shadow see what this ledger grants and accepts, at the moment that it does."""
    claim_shards, record = store.claim_shards, store.commit

    async def claiming(
        owner: str, wants: Sequence[Want], *, lease_seconds: float
    ) -> list[ClaimedShards]:
        granted = await claim_shards(owner, wants, lease_seconds=lease_seconds)
        shadow.granted(granted)
        return granted

    async def committing(commit: Commit) -> list[Verdict]:
        verdicts = await record(commit)
        shadow.committed(commit, verdicts)
        return verdicts

    store.claim_shards = claiming  # type: ignore[method-assign]  # the one place that listens in
    store.commit = committing  # type: ignore[method-assign]  # the one place that listens in
    return store
