"""What every command that speaks to a server shares: where that is, and the key for it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import uvloop

from tidegate.client.access import TIMEOUT_SECONDS_DEFAULT
from tidegate.client.server import Server
from tidegate.config.access import load_access
from tidegate.runtime.ids import RandomIds

BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="The API, as OpenAI's SDKs take it. Else OPENAI_BASE_URL, else "
        "http://127.0.0.1:8000/v1.",
        show_default=False,
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help="A file that holds the key. Else OPENAI_API_KEY, else none is sent.",
        show_default=False,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        help="Certificates (PEM) to trust instead of the system's.",
        show_default=False,
    ),
]
TimeoutSeconds = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="How long an answer may take.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

T = TypeVar("T")


def reach(
    work: Callable[[Server], Awaitable[T]],
    *,
    base_url: str | None = None,
    api_key_file: Path | None = None,
    ca_file: Path | None = None,
    timeout: float = TIMEOUT_SECONDS_DEFAULT,
) -> T:
    """Do some work with a server, and return what it gives.

    Raises:
        SettingsInvalid: the address or key can't be used.
        TidegateError: the server did not do its part; the message says what to do.
    """
    access = load_access(
        base_url=base_url, api_key_file=api_key_file, ca_file=ca_file, timeout_seconds=timeout
    )

    async def with_server() -> T:
        async with Server(access, RandomIds()) as server:
            return await work(server)

    return uvloop.run(with_server())
