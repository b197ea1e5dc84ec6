"""Batches of events on ZMQ sockets: published as they come, and once more on request.

ZMQ's own thread does the sending. A subscriber that is `hwm` batches behind misses the next ones,
and a reader of a replay what is more than the buffer holds; neither is ever waited for.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Self

import msgspec
import zmq

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.kv_events.config import KvEventsConfig
from tidegate.simulator.kv_events.feed import Batch

END = (-1).to_bytes(8, "big", signed=True)
REPLAYED_AT_ONCE = 256
_NUMBER_BYTES = 8
_REQUEST_FRAMES = 3


class Publisher:
    """Publishes batches under rising numbers, and replays the last `buffer_steps` of them.

    It must be made, used and closed in the event loop's thread.

    Attributes:
        config: with the endpoints as they are in truth, where a port was free to choose.
    """

    def __init__(self, config: KvEventsConfig) -> None:
        """Open the sockets.

        Raises:
            SettingsInvalid: an endpoint can't be had.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._topic = config.topic.encode()
        self._encode = msgspec.msgpack.Encoder().encode
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._next = 0
        self._replaying: Iterator[list[bytes]] | None = None
        self._replay: zmq.Socket[bytes] | None = None
        try:
            self._pub = self._context.socket(zmq.PUB)
            self._pub.set_hwm(config.hwm)
            endpoint = _opened(self._pub, config.address, binds=config.binds)
            replay = None
            if config.replay_endpoint is not None:
                self._replay = self._context.socket(zmq.ROUTER)
                # One whole replay fits: it is made faster than it can be sent.
                self._replay.set_hwm(config.buffer_steps + 1)
                replay = _opened(self._replay, config.replay_endpoint, binds=True)
        except SettingsInvalid:
            self._context.destroy(linger=0)
            raise
        self.config = msgspec.structs.replace(
            config, publisher="zmq", endpoint=endpoint, replay_endpoint=replay
        )
        if self._replay is not None:
            asyncio.get_running_loop().add_reader(self._replay.FD, self._hear)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets. Twice is harmless."""
        if self._replay is not None and not self._replay.closed:
            asyncio.get_running_loop().remove_reader(self._replay.FD)
        self._replaying = None
        self._context.destroy(linger=0)

    def publish(self, batch: Batch) -> None:
        """Send a batch to all who listen now, and keep it for those who ask later."""
        payload = self._encode(batch)
        number = self._next
        self._next += 1
        self._pub.send_multipart([self._topic, number.to_bytes(_NUMBER_BYTES, "big"), payload])
        self._buffer.append((number, payload))

    # Replays

    def _hear(self) -> None:
        """Take requests, one replay at a time. The descriptor reports only what is new."""
        while self._replaying is None and self._is_asked:
            assert self._replay is not None, "there is nothing to receive"
            frames = self._replay.recv_multipart(zmq.NOBLOCK)
            if len(frames) == _REQUEST_FRAMES and len(frames[2]) <= _NUMBER_BYTES:
                self._replaying = self._answers(frames[0], int.from_bytes(frames[2], "big"))
                self._go_on()

    @property
    def _is_asked(self) -> bool:
        replay = self._replay
        if replay is None or replay.closed:
            return False
        events = replay.getsockopt(zmq.EVENTS)
        assert isinstance(events, int), events
        return bool(events & zmq.POLLIN)

    def _answers(self, asker: bytes, first: int) -> Iterator[list[bytes]]:
        for number, payload in tuple(self._buffer):
            if number >= first:
                yield [asker, b"", self._topic, number.to_bytes(_NUMBER_BYTES, "big"), payload]
        yield [asker, b"", b"", END, b""]

    def _go_on(self) -> None:
        """Send some of a replay, and let others have their turn."""
        replaying, replay = self._replaying, self._replay
        if replaying is None or replay is None:
            return
        loop = asyncio.get_running_loop()
        for _ in range(REPLAYED_AT_ONCE):
            frames = next(replaying, None)
            if frames is None:
                self._replaying = None
                loop.call_soon(self._hear)
                return
            replay.send_multipart(frames)
        loop.call_soon(self._go_on)


def _opened(socket: "zmq.Socket[bytes]", endpoint: str, *, binds: bool) -> str:
    """Bind or connect a socket; return the endpoint as it is then."""
    try:
        if not binds:
            socket.connect(endpoint)
            return endpoint
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise SettingsInvalid(
            f"--kv-events-config: {endpoint} can't be opened: {error.strerror}."
        ) from error
    found = socket.getsockopt(zmq.LAST_ENDPOINT)
    return found.decode().rstrip("\0") if isinstance(found, bytes) else endpoint
