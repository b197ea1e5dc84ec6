"""The flags of every command that talks to a server: where the server is, and the key for it."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeVar

import typer
import uvloop

from tidegate.client.server import ApiClient
from tidegate.client.settings import TIMEOUT_SECONDS_DEFAULT
from tidegate.config.client import load_client_settings
from tidegate.runtime.ids import RandomIds

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConnection:
    """One field for each flag, and the server that they lead to."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="The API, as OpenAI's SDKs take it. Else OPENAI_BASE_URL, else "
            "http://127.0.0.1:8000/v1.",
            show_default=False,
        ),
    ] = None
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            help="A file that holds the key. Else OPENAI_API_KEY, else none is sent.",
            show_default=False,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            help="Certificates (PEM) to trust instead of the system's.",
            show_default=False,
        ),
    ] = None
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long an answer may take.")
    ] = TIMEOUT_SECONDS_DEFAULT

    def run(self, work: Callable[[ApiClient], Awaitable[T]]) -> T:
        """Run a coroutine function with the server, and return its result.

        Raises:
            SettingsInvalid: the address or key can't be used.
            TidegateError: the server failed or refused; the message says what to do.
        """
        access = load_client_settings(
            base_url=self.base_url,
            api_key_file=self.api_key_file,
            ca_file=self.ca_file,
            timeout_seconds=self.timeout,
        )

        async def with_server() -> T:
            async with ApiClient(access, RandomIds()) as server:
                return await work(server)

        return uvloop.run(with_server())


_FLAGS = inspect.signature(ServerConnection).parameters


def with_connection(command: Callable[Concatenate[ServerConnection, P], None]) -> Callable[P, None]:
    """Give a command the flags of `ServerConnection`; their values are its first argument.

    Typer reads flags from a signature, so the fields are added to that of the command.
    """

    @functools.wraps(command)
    def with_flags(*args: P.args, **given: P.kwargs) -> None:
        flags = {name: given.pop(name) for name in _FLAGS}
        connection = ServerConnection(**flags)  # type: ignore[arg-type]  # Typer has checked the types.
        command(connection, *args, **given)

    _, *own = inspect.signature(command).parameters.values()
    signature = inspect.Signature([*own, *_FLAGS.values()])
    with_flags.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks here first.
    return with_flags
