"""Requests to one server, with every failure as one sentence."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import httpx
import msgspec

from tidegate.client.errors import ServerRefused, UnexpectedResponse
from tidegate.client.http_errors import client_error, timed_out
from tidegate.client.sanitize import sanitize
from tidegate.client.settings import CONNECT_SECONDS_MAX, ClientSettings
from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.ids import IdMaker

ANSWER_BYTES_MAX = 64 * 2**20
REFUSAL_BYTES_MAX = 64 * 1024
_OK = 300
_REDIRECT = range(300, 400)
_UNAUTHORIZED = 401
_NOT_FOUND = 404


class _Fault(msgspec.Struct):
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _Fault | str


class ApiClient:
    """Sends requests to one server; `async with` closes its connections.

    Attributes:
        access: how to reach it.
        ids: makes the boundaries of forms.
    """

    def __init__(self, access: ClientSettings, ids: IdMaker) -> None:
        """Prepare requests; no connection is opened.

        Raises:
            SettingsInvalid: the file of authorities can't be used.
        """
        self.access = access
        self.ids = ids
        headers = {"accept-encoding": "identity", "user-agent": "tidegate"}
        if access.api_key is not None:
            headers["authorization"] = f"Bearer {access.api_key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(
                access.timeout_seconds, connect=min(CONNECT_SECONDS_MAX, access.timeout_seconds)
            ),
            verify=_trust(access),
            trust_env=access.proxies,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """Return the whole body of a successful answer; its content type is JSON.

        Args:
            method: the HTTP method.
            path: relative to the base URL, beginning with a slash, its segments quoted.
            query: parameters.
            body: JSON to send.

        Raises:
            ServerUnreachable: no complete answer came in time.
            UnexpectedResponse: the answer is not one of an OpenAI-compatible server.
            ServerRefused: the server refused the request.
        """
        seconds = self.access.timeout_seconds
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            async with (
                asyncio.timeout(seconds),
                self.stream(method, path, query=query, content=body, headers=headers) as reply,
            ):
                return await self.json_body(reply)
        except TimeoutError as exc:
            raise timed_out(self.access) from exc

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        accepted: frozenset[int] = frozenset(),
    ) -> AsyncIterator[httpx.Response]:
        """Yield the head of a successful answer, or of one whose status is in `accepted`.

        Raises as `request` does, also for errors while the block reads the body.
        """
        with self._translate_errors():
            async with self._http.stream(
                method, f"{self.access.root}{path}", params=query, content=content, headers=headers
            ) as reply:
                if reply.status_code >= _OK and reply.status_code not in accepted:
                    raise await self._refusal(reply)
                yield reply

    async def json_body(self, reply: httpx.Response) -> bytes:
        """Return the body of a JSON answer.

        Raises:
            UnexpectedResponse: it is too large, or not JSON.
        """
        kind = sanitize(reply.headers.get("content-type", "no content type"), 60)
        if "json" not in kind.lower():
            raise UnexpectedResponse(
                f"{self.access.root} answered with '{kind}' instead of JSON: "
                "give the base URL of an OpenAI-compatible API; it usually ends in /v1."
            )
        data = await _read(reply, ANSWER_BYTES_MAX)
        if len(data) > ANSWER_BYTES_MAX:
            raise UnexpectedResponse(
                f"{self.access.root} answered with more than {ANSWER_BYTES_MAX} bytes to a "
                "request for a small object: is it an OpenAI-compatible server?"
            )
        return data

    async def _refusal(self, reply: httpx.Response) -> ServerRefused | UnexpectedResponse:
        status = reply.status_code
        if status in _REDIRECT:
            target = sanitize(reply.headers.get("location", "nowhere"), 200)
            return UnexpectedResponse(
                f"{self.access.root} redirects ({status}, to {target}): set the base URL to the "
                "address of the API."
            )
        message = _error_message(await _read(reply, REFUSAL_BYTES_MAX))
        if status == _UNAUTHORIZED:
            reason = message or "the key is missing or wrong."
            return ServerRefused(
                f"The server does not accept the key (401): {reason} Set OPENAI_API_KEY, or give "
                "--api-key-file.",
                status=status,
            )
        if message is None and status == _NOT_FOUND:
            return UnexpectedResponse(
                f"There is nothing at {sanitize(str(reply.url), 200)} (404): give the base URL of "
                "an OpenAI-compatible API with files and batches; it usually ends in /v1."
            )
        reason = message or f"it gave no reason ({reply.reason_phrase or 'no phrase'})."
        return ServerRefused(f"The server refused ({status}): {reason}", status=status)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as exc:
            raise client_error(exc, self.access) from exc


def _trust(access: ClientSettings) -> ssl.SSLContext | bool:
    if access.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(access.ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise SettingsInvalid(
            f"--ca-file {access.ca_file} can't be used ({sanitize(str(exc), 200)}): name a file of "
            "certificates in PEM form."
        ) from exc


async def _read(reply: httpx.Response, bytes_max: int) -> bytes:
    """Return the body; if it is too long, its first `bytes_max` + 1 bytes."""
    data = bytearray()
    async for piece in reply.aiter_raw():
        data += piece
        if len(data) > bytes_max:
            break
    return bytes(data[: bytes_max + 1])


def _error_message(body: bytes) -> str | None:
    """Return the message of an error envelope; None if the body is not one."""
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    message = refusal.error if isinstance(refusal.error, str) else refusal.error.message
    return sanitize(message) if message else None
