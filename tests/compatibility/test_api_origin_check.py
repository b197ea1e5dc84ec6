"""Without keys, this machine may come in, and the web pages that its browser shows may not."""

import hashlib

import httpx
import pytest

from testkit.servers.api import ApiWorld, served
from tidegate.api.settings import Settings

KEYED = Settings(keys={hashlib.sha256(b"k").hexdigest(): "default"})
OPEN = Settings(host="10.0.0.1", any_host=True)
NAMED = Settings(host="box")


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        (Settings(), {"host": "127.8.8.8:80"}, 200),
        (Settings(), {"host": "localhost:1"}, 200),
        (Settings(), {"host": "[::1]:1"}, 200),
        (Settings(), {"host": "evil.example"}, 403),
        (Settings(), {"host": "[::"}, 403),
        (Settings(), {"host": ""}, 403),
        (Settings(), {"origin": "http://localhost:3000"}, 200),
        (Settings(), {"origin": "https://evil.example"}, 403),
        (Settings(), {"origin": "http://localhost.evil.example"}, 403),
        (Settings(), {"origin": "null"}, 403),
        (Settings(), {"sec-fetch-site": "cross-site"}, 403),
        (Settings(), {"sec-fetch-site": "same-origin"}, 200),
        (NAMED, {"host": "Box:1", "origin": "http://box"}, 200),
        (OPEN, {"host": "any.example"}, 200),
        (OPEN, {"host": "any.example", "origin": "https://evil.example"}, 403),
        (OPEN, {"host": "any.example", "origin": "http://any.example"}, 200),
        (KEYED, {"host": "any", "origin": "http://e", "authorization": "Bearer k"}, 200),
    ],
)
async def test_a_foreign_page_is_kept_out(
    settings: Settings, headers: dict[str, str], status: int
) -> None:
    async with (
        served(ApiWorld(settings=settings)) as world,
        httpx.AsyncClient(base_url=world.url, timeout=30, trust_env=False) as client,
    ):
        reply = await client.get("/v1/files", headers=headers)
    assert reply.status_code == status
    if status == 403:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
