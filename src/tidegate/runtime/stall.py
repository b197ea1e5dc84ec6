"""A client that does not read: seen by the bytes that wait for it, and given up in time."""

import asyncio


class StallWatch:
    """Breaks a connection off whose client takes no byte of what is written to it.

    Closing in good order would wait until the client has read everything, which may be for ever.

    Args:
        loop: the running loop.
        transport: the connection.
        seconds: how long nothing may be taken; at most twice as long passes until it is broken off.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = seconds
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Begin to watch, if bytes wait to be taken and nobody watches yet."""
        if self._timer is None:
            self._watch()

    def stop(self) -> None:
        """Watch no more. Twice is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        self._waiting = self._transport.get_write_buffer_size()
        if self._waiting:
            self._timer = self._loop.call_later(self._seconds, self._judge)

    def _judge(self) -> None:
        self._timer = None
        # Fewer: some were taken. More: a reply was added, which ends once the buffer is full.
        if self._transport.get_write_buffer_size() == self._waiting:
            self._transport.abort()
        else:
            self._watch()
