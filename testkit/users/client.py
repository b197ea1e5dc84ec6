"""A user of the client room, for tests: on an API of ours, or on a server that plays a script."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tidegate.client.server import ApiClient
from tidegate.client.settings import ClientSettings
from tidegate.testing.ids import SeededIds


@asynccontextmanager
async def client_of(
    url: str,
    *,
    api_key: str | None = None,
    timeout_seconds: float = 20.0,
    ca_file: Path | None = None,
) -> AsyncIterator[ApiClient]:
    """Give a client of the server at `url`."""
    access = ClientSettings(
        base_url=url, api_key=api_key, timeout_seconds=timeout_seconds, ca_file=ca_file
    )
    async with ApiClient(access, SeededIds(random.Random(3))) as server:
        yield server
