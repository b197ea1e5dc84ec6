"""A child process of a cell whose upstream does what the body of a call says."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from typing_extensions import override

from tidegate.domain.errors import ConnectFailed, ReplyBroken, ReplyTooLarge, TimedOut
from tidegate.sandbox.child import isolate_process, redirect_stdout, serve
from tidegate.upstreams.base import Call, Reply, Upstream


def fail(error: Exception) -> NoReturn:
    raise error


def hang() -> NoReturn:
    while True:
        pass


DEEDS: dict[bytes, Callable[[], object]] = {
    b"connect": lambda: fail(ConnectFailed("Nobody there.")),
    b"late": lambda: fail(TimedOut("Nothing came.", phase="idle")),
    b"broken": lambda: fail(ReplyBroken("It broke off.")),
    b"large": lambda: fail(ReplyTooLarge("Too much.")),
    b"bug": lambda: fail(KeyError("a secret prompt")),
    b"die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"leave": lambda: os._exit(7),
    b"hang": hang,
    b"print": lambda: os.write(1, b"a library says hello\n"),
}


class Obedient(Upstream):
    """Dies, hangs, eats or fails on demand; answers everything else with the call itself."""

    def __init__(self, detail: bytes) -> None:
        self._detail = detail

    @override
    async def send(self, call: Call) -> Reply:
        word, _, number = call.body.partition(b" ")
        if word in DEEDS:
            DEEDS[word]()
        if word == b"wait":
            await asyncio.Event().wait()
        if word == b"eat":
            return Reply(status=200, headers={}, body=b"%d" % len(bytearray(int(number))))
        if word == b"fill":
            return Reply(status=200, headers={}, body=bytes(int(number)))
        headers = {**call.headers, "detail": self._detail.decode(), "path": call.path}
        return Reply(status=200, headers=headers, body=call.body)

    @override
    async def aclose(self) -> None:
        return


def validate_reply(call: Call, reply: Reply) -> None:
    if call.body == b"unfit":
        raise ValueError("a secret reply")


if __name__ == "__main__":
    out = redirect_stdout()
    isolate_process()
    if "refuse" in sys.argv:
        os._exit(9)
    asyncio.run(serve(Obedient, validate_reply, out=out))
