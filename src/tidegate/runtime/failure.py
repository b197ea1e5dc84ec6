"""A service that does nothing until something is found to be broken: then it dies of it."""

import asyncio


class Failure:
    """Lets code that is no service end the process: what it reports is raised by `run`."""

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._end = asyncio.Event()

    def report(self, error: Exception) -> None:
        """End the process because of this. Only the first report counts."""
        self._error = self._error or error
        self._end.set()

    async def run(self) -> None:
        """Wait until stopped.

        Raises:
            Exception: what was reported.
        """
        await self._end.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End, unless something was reported."""
        self._end.set()

    def abort(self) -> None:
        """End, unless something was reported."""
        self._end.set()
