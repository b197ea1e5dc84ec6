"""Upload, read, list and delete files. `download` holds the downloads."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from tidegate.client.errors import LocalFileUnusable
from tidegate.client.objects import path_segment
from tidegate.client.pages import list_items
from tidegate.client.server import ApiClient

PIECE_BYTES = 256 * 1024

# Called after each piece with the bytes transferred, and the bytes in all if known.
OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUpload:
    """What is uploaded, and after how long it expires (None: the server decides)."""

    path: Path
    purpose: str
    expires_seconds: int | None = None


async def upload(server: ApiClient, wanted: FileUpload, on_progress: OnProgress) -> bytes:
    """Upload a file piece by piece; return its object. Raises as `ApiClient.request` does.

    Raises:
        LocalFileUnusable: it can't be read, or becomes shorter while it is.
    """
    try:
        with wanted.path.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(0)
            return await _send(server, wanted, source, size, on_progress)
    except OSError as exc:
        raise LocalFileUnusable(f"The file {wanted.path} can't be read: {exc.strerror}.") from exc


async def get_file(server: ApiClient, file_id: str) -> bytes:
    """Return a file object."""
    return await server.request("GET", f"/files/{path_segment(file_id)}")


async def delete_file(server: ApiClient, file_id: str) -> bytes:
    """Delete a file; return the server's answer."""
    return await server.request("DELETE", f"/files/{path_segment(file_id)}")


def list_files(
    server: ApiClient, *, limit: int | None = None, purpose: str | None = None
) -> AsyncIterator[msgspec.Raw]:
    """Yield file objects, newest first."""
    return list_items(
        server, "/files", limit=limit, query={"purpose": purpose} if purpose else None
    )


async def _send(
    server: ApiClient, wanted: FileUpload, source: BinaryIO, size: int, on_progress: OnProgress
) -> bytes:
    boundary = server.ids.make("tidegate-")
    head = _form_head(wanted, boundary)
    tail = f"\r\n--{boundary}--\r\n".encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield head
        sent = 0
        on_progress(0, size)
        while sent < size:
            piece = source.read(min(PIECE_BYTES, size - sent))
            if not piece:
                raise LocalFileUnusable(
                    f"The file {wanted.path} became shorter while it was uploaded; upload it again "
                    "once no program writes to it."
                )
            yield piece
            sent += len(piece)
            on_progress(sent, size)
        yield tail

    headers = {
        "content-type": f"multipart/form-data; boundary={boundary}",
        "content-length": str(len(head) + size + len(tail)),
    }
    async with server.stream("POST", "/files", content=pieces(), headers=headers) as reply:
        return await server.json_body(reply)


def _form_head(wanted: FileUpload, boundary: str) -> bytes:
    """Return the form up to the bytes of the file. Fields come first: some servers need that."""
    fields = {"purpose": wanted.purpose}
    if wanted.expires_seconds is not None:
        fields["expires_after[anchor]"] = "created_at"
        fields["expires_after[seconds]"] = str(wanted.expires_seconds)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    name = wanted.path.name
    for letter, quoted in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
        name = name.replace(letter, quoted)
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(parts).encode("utf-8", "replace")
