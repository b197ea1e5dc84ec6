"""A look into the ledger from outside: who is alive, who holds what, and when it passes on."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

LOOK_SECONDS = 0.02
BUSY_MILLISECONDS = 5_000

Unit = tuple[str, str, int]


@dataclass
class Inheritance:
    """What a dead processor held, and after how many seconds others claimed it."""

    killed_at: float
    epochs: Mapping[Unit, int]
    seconds: dict[Unit, float] = field(default_factory=dict)

    def look(self, epochs: Mapping[Unit, int]) -> None:
        now = time.monotonic()
        for unit, epoch in self.epochs.items():
            if unit not in self.seconds and epochs.get(unit, epoch) > epoch:
                self.seconds[unit] = now - self.killed_at


class LedgerWatch:
    """Reads a ledger that others write, and never writes it. Watches in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: list[Inheritance] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ledger watch")
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def living(self) -> set[str]:
        """Return the owners that count as alive, or did until lately."""
        with self._open() as ledger:
            return {str(owner) for (owner,) in ledger.execute("SELECT owner FROM living")}

    def bequeath(self, owner: str, killed_at: float) -> Inheritance:
        """Note what this owner holds, now that it is dead."""
        with self._open() as ledger:
            rows = ledger.execute(
                "SELECT batch_id, kind, number, epoch FROM unit WHERE ended = 0 AND owner = ?",
                (owner,),
            )
            left = Inheritance(killed_at, {(b, kind, n): epoch for b, kind, n, epoch in rows})
        self._left.append(left)
        return left

    def _watch(self) -> None:
        try:
            with self._open() as ledger:
                while not self._stop.wait(LOOK_SECONDS):
                    self._look(ledger)
        except apsw.Error as error:
            self._error = error

    def _look(self, ledger: apsw.Connection) -> None:
        waiting = [left for left in self._left if len(left.seconds) < len(left.epochs)]
        if not waiting:
            return
        rows = ledger.execute("SELECT batch_id, kind, number, epoch FROM unit")
        epochs = {(b, kind, n): epoch for b, kind, n, epoch in rows}
        for left in waiting:
            left.look(epochs)

    def _open(self) -> "_Open":
        return _Open(self._path)


class _Open:
    """A connection for reading alone."""

    def __init__(self, path: Path) -> None:
        self._ledger = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._ledger.set_busy_timeout(BUSY_MILLISECONDS)

    def __enter__(self) -> apsw.Connection:
        return self._ledger

    def __exit__(self, *_: object) -> None:
        self._ledger.close()
