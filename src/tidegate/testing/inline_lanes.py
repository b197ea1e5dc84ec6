"""Lanes that run each step at once in the caller, so that a simulation can replay it."""

from typing_extensions import override

from tidegate.domain.errors import StoreUnavailable
from tidegate.stores.lanes import Executor, Lane, Step, Worker


class InlineExecutor(Executor):
    """Runs each step immediately in the caller, and never yields to other tasks."""

    @override
    def open_lane(self, name: str, worker: Worker) -> Lane:
        return _InlineLane(worker)


class _InlineLane(Lane):
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._closed = False

    @override
    async def _submit(self, step: Step) -> None:
        if self._closed:
            raise StoreUnavailable("The ledger is closed; open it before use.")
        self._worker.run([step])

    @override
    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._worker.close()
