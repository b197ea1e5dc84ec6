"""A client that uploads a file as fast as the kernel can, so that the server is what is timed."""

import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_BOUNDARY = "tidegate-ingest-5f0c3b7a9d1e4c62"
_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class Uploaded:
    """A file that the server has, and how long it took until it said so."""

    file_id: str
    seconds: float


def upload(base_url: str, path: Path, purpose: str) -> Uploaded:
    """Upload a file over a new connection."""
    parts = urlsplit(base_url)
    assert parts.hostname is not None, base_url
    head = (
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    ).encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS_MAX)
    began = time.monotonic()
    with path.open("rb") as data:
        connection.putrequest("POST", f"{parts.path}/files")
        connection.putheader("content-type", f"multipart/form-data; boundary={_BOUNDARY}")
        length = len(head) + path.stat().st_size + len(tail)
        connection.putheader("content-length", str(length))
        connection.endheaders()
        connection.sock.sendall(head)
        connection.sock.sendfile(data)
        connection.sock.sendall(tail)
        reply = connection.getresponse()
        reply_json = json.loads(reply.read())
    seconds = time.monotonic() - began
    connection.close()
    if reply.status != http.client.OK:
        raise SystemExit(f"The upload was answered with {reply.status}: {reply_json}")
    return Uploaded(str(reply_json["id"]), seconds)
