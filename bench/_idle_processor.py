"""A real processor whose calls to its SQLite ledger are counted: FOLDER WARM_UP SECONDS."""

import asyncio
import inspect
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable

from tidegate.cli import main
from tidegate.stores.base import Store
from tidegate.stores.sqlite import SqliteStore

UNCOUNTED = {"check", "health"}  # Probes of the disk, not questions of a processor.


def counted(name: str, calls: Counter[str]) -> Callable[..., object]:
    method = getattr(SqliteStore, name)

    async def call(self: SqliteStore, *arguments: object, **named: object) -> object:
        calls[name] += 1
        return await method(self, *arguments, **named)

    return call


def watch(warm_up_seconds: float, seconds: float) -> None:
    calls: Counter[str] = Counter()
    for name, method in vars(Store).items():
        is_verb = inspect.iscoroutinefunction(method) and not name.startswith("_")
        if is_verb and name not in UNCOUNTED:
            setattr(SqliteStore, name, counted(name, calls))
    enter = SqliteStore.__aenter__
    started = False

    async def entered(self: SqliteStore) -> SqliteStore:
        nonlocal started
        if not started:
            started = True
            loop = asyncio.get_running_loop()
            loop.call_later(warm_up_seconds, calls.clear)
            loop.call_later(warm_up_seconds + seconds, report)
        return await enter(self)

    def report() -> None:
        print(json.dumps(calls), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    SqliteStore.__aenter__ = entered


if __name__ == "__main__":
    folder, warm_up, seconds = sys.argv[1:]
    watch(float(warm_up), float(seconds))
    sys.argv = ["tidegate", "processor", "--set", "upstream.url=http://127.0.0.1:9"]
    sys.argv += ["--set", f"data_dir={folder}", "--set", "server.observability_port=0"]
    main()
