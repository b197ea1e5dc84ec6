"""Peers of the dispatcher, each a process of its own: the same loop on aiohttp, a gather on httpx.

The last line that one prints is JSON: requests, their CPU in microseconds, and the seconds.
"""

import argparse
import asyncio
import importlib
import json
import os
import resource
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import httpx
import msgspec
import uvloop

COMMIT_SECONDS = 0.02
OK = 200


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    body: msgspec.Raw


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    usage: _Usage


_READ_LINE = msgspec.json.Decoder(_Line)
_READ_REPLY = msgspec.json.Decoder(_Reply)


@dataclass
class Order:
    """What to send, where, how many at once; results go to the end of `out`."""

    origin: str
    lines: Iterator[bytes]
    out: BinaryIO
    concurrency: int


@dataclass
class Books:
    """Results that are not yet on disk, and the tokens of all."""

    waiting: list[bytes]
    tokens: int = 0
    done: int = 0

    def add(self, line: _Line, status: int, reply: bytes) -> None:
        if status != OK:
            raise SystemExit(f"The upstream answered {status}.")
        usage = _READ_REPLY.decode(reply).usage
        self.tokens += usage.prompt_tokens + usage.completion_tokens
        self.done += 1
        result = b'{"id":"batch_req_%d","custom_id":"%s","response":{"status_code":%d,"body":%s}}\n'
        self.waiting.append(result % (self.done, line.custom_id.encode(), status, reply))

    def flush(self, out: BinaryIO) -> None:
        """Make what waits durable."""
        if self.waiting:
            out.write(b"".join(self.waiting))
            out.flush()
            os.fdatasync(out.fileno())
            self.waiting.clear()


async def _commit_often(books: Books, out: BinaryIO) -> None:
    while True:
        await asyncio.sleep(COMMIT_SECONDS)
        books.flush(out)


async def on_aiohttp(order: Order, books: Books) -> None:
    """Our loop without what ours has besides: a number of workers, each one request at a time."""
    import aiohttp  # noqa: PLC0415 -- the other peer does without it; `main` has loaded it before

    connector = aiohttp.TCPConnector(limit=order.concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            for raw in order.lines:
                line = _READ_LINE.decode(raw)
                headers = {"content-type": "application/json", "x-request-id": line.custom_id}
                url = order.origin + line.url
                async with session.post(url, data=bytes(line.body), headers=headers) as reply:
                    books.add(line, reply.status, await reply.read())

        async with asyncio.TaskGroup() as group:
            writer = group.create_task(_commit_often(books, order.out), name="writer")
            async with asyncio.TaskGroup() as workers:
                for number in range(order.concurrency):
                    workers.create_task(work(), name=f"worker {number}")
            writer.cancel()
    books.flush(order.out)


async def on_httpx(order: Order, books: Books) -> None:
    """What scripts do: one task for each line, all gathered, everything written at the end."""
    limits = httpx.Limits(max_connections=order.concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        places = asyncio.Semaphore(order.concurrency)

        async def ask(raw: bytes) -> None:
            line = json.loads(raw)
            async with places:
                reply = await client.post(order.origin + line["url"], json=line["body"])
            books.add(_READ_LINE.decode(raw), reply.status_code, reply.content)

        await asyncio.gather(*(ask(raw) for raw in order.lines))
    books.flush(order.out)


PEERS: dict[str, Callable[[Order, Books], Coroutine[None, None, None]]] = {
    "aiohttp": on_aiohttp,
    "httpx": on_httpx,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--url", required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    options = parser.parse_args()
    # Loading it is no part of what is measured.
    importlib.import_module(options.peer)
    books = Books([])
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    with options.input.open("rb") as lines, options.output.open("wb") as out:
        order = Order(options.url, islice(lines, options.requests), out, options.concurrency)
        uvloop.run(PEERS[options.peer](order, books))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    figures = {"requests": books.done, "cpu_us": round(cpu * 1e6)}
    print(json.dumps(figures | {"seconds": round(time.monotonic() - started, 3)}))


if __name__ == "__main__":
    main()
