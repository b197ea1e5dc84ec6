"""Download a file, and resume where an earlier attempt stopped.

The bytes go into `NAME.part`; the file's id and entity tag go into `NAME.part.json`. The next
attempt asks for the rest only if the tag is still the same (Range, If-Range), so parts of two files
are never joined. Once complete and of the announced length, it becomes `NAME`.
"""

import asyncio
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
import msgspec

from tidegate.client.errors import (
    LocalFileUnusable,
    ServerUnreachable,
    TransferStopped,
    UnexpectedResponse,
)
from tidegate.client.files import OnProgress
from tidegate.client.objects import path_segment
from tidegate.client.server import ApiClient

TRIES_MAX = 5  # Attempts in a row that bring no byte; any progress resets the count.
PAUSE_SECONDS = 1.0
_PARTIAL = 206
_NOT_SATISFIABLE = 416
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_WHOLE = re.compile(r"bytes \*/(\d{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """The size of the file, and how much of it earlier attempts had brought."""

    bytes: int
    resumed_from: int


class _PartInfo(msgspec.Struct):
    file_id: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The offset of the next bytes, and the length of the whole file."""

    start: int
    total: int | None

    def check_end(self, position: int) -> int:
        """Return `position` if it is the end of the file.

        Raises:
            TransferStopped: it is not the end.
        """
        # Without a length, HTTP chunks mark the end, and the library raises if they are cut off.
        if self.total is not None and position != self.total:
            raise TransferStopped(f"The transfer stopped at byte {position} of {self.total}.")
        return position


async def download(
    server: ApiClient,
    file_id: str,
    target: Path,
    *,
    overwrite: bool,
    on_progress: OnProgress,
    pause_seconds: float = PAUSE_SECONDS,
) -> Downloaded:
    """Download a file to `target`, which exists only once it is complete and on disk.

    Raises:
        LocalFileUnusable: the target exists already, is being written, or can't be.
        TransferStopped: the transfer stopped; the bytes so far are kept for the next attempt.
        ServerUnreachable, UnexpectedResponse, ServerRefused: as `ApiClient.request`.
    """
    _check_target(target, overwrite=overwrite)
    place = target.with_name(f"{target.name}.part")
    with _translate_os_errors(target), _opened(place) as part:
        fetch = _Fetch(server, file_id, target, part, on_progress)
        try:
            result = await fetch.run(pause_seconds)
        except BaseException:
            if fetch.is_empty:
                # There is nothing to resume from.
                place.unlink(missing_ok=True)
                fetch.forget()
            raise
        _publish(part, place, target)
        fetch.forget()
        return result


async def download_to_stream(server: ApiClient, file_id: str, sink: BinaryIO) -> int:
    """Write a file's content to an open stream, without resuming; return its length in bytes.

    Raises:
        TransferStopped: the transfer stopped.
    """
    async with server.stream("GET", f"/files/{path_segment(file_id)}/content") as reply:
        _refuse_unfit(reply)
        plan = _Plan(start=0, total=_length(reply))
        position = 0
        async for piece in reply.aiter_raw():
            sink.write(piece)
            position += len(piece)
    return plan.check_end(position)


class _Fetch:
    """One download, in as many attempts as it takes."""

    def __init__(
        self, server: ApiClient, file_id: str, target: Path, part: BinaryIO, on_progress: OnProgress
    ) -> None:
        self._server = server
        self._path = f"/files/{path_segment(file_id)}/content"
        self._file_id = file_id
        self._info = target.with_name(f"{target.name}.part.json")
        self._part = part
        self._on_progress = on_progress

    async def run(self, pause_seconds: float) -> Downloaded:
        resumed_from = self._part_bytes() if self._tag() else 0
        failures = 0
        while True:
            before = self._part_bytes()
            try:
                total = await self._try()
            except (ServerUnreachable, TransferStopped) as exc:
                failures = 0 if self._part_bytes() > before else failures + 1
                if failures >= TRIES_MAX:
                    raise TransferStopped(
                        f"{exc} {self._part_bytes()} bytes are kept: run the same command again to "
                        "continue."
                    ) from exc
                await asyncio.sleep(pause_seconds)
                continue
            return Downloaded(bytes=total, resumed_from=resumed_from)

    @property
    def is_empty(self) -> bool:
        """Return whether no byte has arrived."""
        return self._part_bytes() == 0

    def forget(self) -> None:
        """Remove the description of the part."""
        self._info.unlink(missing_ok=True)

    async def _try(self) -> int:
        """Request the missing bytes once; return the length of the complete file."""
        here, tag = self._part_bytes(), self._tag()
        headers = {"range": f"bytes={here}-", "if-range": tag} if here and tag else {}
        async with self._server.stream(
            "GET", self._path, headers=headers, accepted=frozenset({_NOT_SATISFIABLE})
        ) as reply:
            if reply.status_code == _NOT_SATISFIABLE:
                return self._on_not_satisfiable(reply, here)
            _refuse_unfit(reply)
            plan = self._plan(reply, here)
            self._begin(reply, plan.start)
            position = plan.start
            self._on_progress(position, plan.total)
            async for piece in reply.aiter_raw():
                self._part.write(piece)
                position += len(piece)
                self._on_progress(position, plan.total)
        return plan.check_end(position)

    def _plan(self, reply: httpx.Response, here: int) -> _Plan:
        if reply.status_code != _PARTIAL:
            return _Plan(start=0, total=_length(reply))
        found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
        if found is None or int(found[1]) != here or int(found[2]) + 1 != int(found[3]):
            self._start_over()
            raise UnexpectedResponse(
                "The server sent a range other than the requested one: run the command again to "
                "start from the beginning."
            )
        return _Plan(start=here, total=int(found[3]))

    def _begin(self, reply: httpx.Response, start: int) -> None:
        """Prepare the part for bytes from `start`, and record which file they belong to."""
        self._part.truncate(start)
        self._part.seek(start)
        if start == 0:
            tag = reply.headers.get("etag", "")
            # A weak tag does not promise identical bytes.
            if tag.startswith('"'):
                self._info.write_bytes(msgspec.json.encode(_PartInfo(self._file_id, tag)))
            else:
                self.forget()

    def _on_not_satisfiable(self, reply: httpx.Response, here: int) -> int:
        """Handle a 416: either no byte is missing, or the part is not of this file."""
        found = _WHOLE.fullmatch(reply.headers.get("content-range", ""))
        if found is not None and int(found[1]) == here:
            return here
        self._start_over()
        raise UnexpectedResponse(
            "The part on this machine is not of this file and was dropped: run the command again."
        )

    def _start_over(self) -> None:
        self._part.truncate(0)
        self.forget()

    def _part_bytes(self) -> int:
        self._part.flush()
        return self._part.seek(0, 2)

    def _tag(self) -> str | None:
        """Return the entity tag of the part, if it is of this file."""
        try:
            info = msgspec.json.decode(self._info.read_bytes(), type=_PartInfo)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        known = info.file_id == self._file_id and info.tag.isascii() and info.tag.isprintable()
        return info.tag if known else None


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        raise LocalFileUnusable(f"{target} is a directory: name a file with --output.")
    if target.exists() and not target.is_file():
        raise LocalFileUnusable(f"{target} is not a regular file: name another one with --output.")
    if target.exists() and not overwrite:
        raise LocalFileUnusable(
            f"{target} exists: name another file with --output, or add --overwrite."
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open the part, locked for this process."""
    # Results may be private, so other users may not read them.
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(number, "r+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise LocalFileUnusable(
                f"Another process is downloading to {path}: wait until it ends."
            ) from exc
        if not _is_at(path, part):
            # The process that held it has just ended, and renamed the file.
            raise LocalFileUnusable(f"Another process was downloading to {path}: try again.")
        yield part


def _is_at(path: Path, part: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(part.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def _translate_os_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LocalFileUnusable(
            f"{target} can't be written: {exc.strerror}. The bytes so far are kept: fix that and "
            "run the same command again."
        ) from exc


def _publish(part: BinaryIO, place: Path, target: Path) -> None:
    """Give the complete file its name; flush both, so that they survive power loss."""
    part.flush()
    os.fsync(part.fileno())
    place.replace(target)
    number = os.open(target.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)


def _length(reply: httpx.Response) -> int | None:
    """Return the announced length of the body; None if it is chunked, which marks its end."""
    length = reply.headers.get("content-length", "")
    if length.isdecimal():
        return int(length)
    if "chunked" in reply.headers.get("transfer-encoding", "").lower():
        return None
    raise UnexpectedResponse(
        "The server does not announce the length of the file, so its end is unknown."
    )


def _refuse_unfit(reply: httpx.Response) -> None:
    # No API sends the content of a file as a web page: this is some other web server.
    if reply.headers.get("content-type", "").lower().startswith("text/html"):
        raise UnexpectedResponse(
            "The server answered with a web page instead of the file: give the base URL of an "
            "OpenAI-compatible API; it usually ends in /v1."
        )
    encoding = reply.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnexpectedResponse("The server compressed the file although the request forbade it.")
