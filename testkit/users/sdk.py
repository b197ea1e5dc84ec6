"""A user with the real OpenAI SDK, on a gateway of ours: for tests of compatibility.

Needs the extra `client`. The SDK is used as it comes; nothing of it is replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
from openai import AsyncOpenAI
from openai.types import Batch

from testkit.servers.api import ApiWorld, served_and_run
from tidegate.api.settings import Settings
from tidegate.blobs.memory import MemoryBlobs
from tidegate.endpoints.endpoint import Routes
from tidegate.processor.settings import Settings as ProcessorSettings
from tidegate.runtime.clock import SystemClock
from tidegate.testing.deployment import Answer, ResultLine

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
WAIT_SECONDS_MAX = 30.0


class SdkUser:
    """What users do with the SDK, and the world behind the API for a test to look at."""

    def __init__(self, client: AsyncOpenAI, world: ApiWorld) -> None:
        self.client = client
        self.world = world

    async def upload(self, data: bytes) -> str:
        """Upload a batch file; return its id."""
        file = await self.client.files.create(file=("in.jsonl", data), purpose="batch")
        return file.id

    async def create(
        self, file_id: str, *, endpoint: str = "/v1/chat/completions", window: str = "24h"
    ) -> Batch:
        """Create a batch; what the SDK's types do not name goes the way that they leave open."""
        return await self.client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"endpoint": endpoint, "completion_window": window},
        )

    async def submit(self, lines: Sequence[bytes], *, window: str = "24h") -> Batch:
        """Upload lines and create a batch over them."""
        return await self.create(await self.upload(b"".join(lines)), window=window)

    async def until(self, batch_id: str, holds: Callable[[Batch], bool]) -> Batch:
        """Ask for a batch until something holds of it.

        Raises:
            TimeoutError: it does not hold after `WAIT_SECONDS_MAX`.
        """
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            with self.world.pubsub.listen(("batch/",)) as listener:
                while not holds(batch := await self.client.batches.retrieve(batch_id)):
                    await listener.wait(0.05)
        return batch

    async def end_of(self, batch_id: str) -> Batch:
        """Ask for a batch until it is terminal."""
        return await self.until(batch_id, lambda batch: batch.status in TERMINAL)

    async def content(self, file_id: str) -> bytes:
        """Return the bytes of a file."""
        return (await self.client.files.content(file_id)).content

    async def results(self, file_id: str | None) -> dict[str, ResultLine]:
        """Return the lines of an output or error file by custom_id; without a file, none."""
        if file_id is None:
            return {}
        lines = (await self.content(file_id)).splitlines()
        decoded = [msgspec.json.decode(line, type=ResultLine) for line in lines]
        found = {line.custom_id: line for line in decoded}
        assert len(found) == len(lines), "a custom_id came twice"
        return found


@asynccontextmanager
async def sdk_user(
    routes: Routes | Mapping[str, Answer] | Answer,
    *,
    settings: Settings | None = None,
    processor: ProcessorSettings | None = None,
) -> AsyncIterator[SdkUser]:
    """Run a gateway in memory and real time with these model servers, and give its user."""
    world = ApiWorld(
        settings=settings or Settings(), clock=SystemClock(), blobs=MemoryBlobs(appends=True)
    )
    async with (
        served_and_run(world, routes, processor),
        AsyncOpenAI(base_url=f"{world.url}/v1", api_key="unused") as client,
    ):
        yield SdkUser(client, world)
