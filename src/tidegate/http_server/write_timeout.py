"""Aborts connections whose client does not read its reply."""

import asyncio


class WriteTimeout:
    """Aborts a connection if its client reads nothing of the bytes that wait for it.

    Closing normally would wait until the client has read everything, which may never happen.

    Args:
        loop: the running loop.
        transport: the connection.
        seconds: the time in which some byte must be read; the abort follows within twice as long.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = seconds
        self._buffered = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the timer if bytes wait to be read and it does not run yet."""
        if self._timer is None:
            self._arm()

    def stop(self) -> None:
        """Stop the timer. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._buffered = self._transport.get_write_buffer_size()
        if self._buffered:
            self._timer = self._loop.call_later(self._seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        # Fewer bytes: some were read. More: a reply grew, which ends once the buffer is full.
        if self._transport.get_write_buffer_size() == self._buffered:
            self._transport.abort()
        else:
            self._arm()
