"""Work in bounded pieces: between two of them others get their turn, and a stop is obeyed."""

import asyncio

PIECE = 200
LOOK_MAX = 10_000


class Stopped(Exception):
    """The collector was told to stop: what is left is for the next round. Never leaves the room."""


class Pace:
    """Asked before each piece of work (about `PIECE` rows or blobs)."""

    def __init__(self) -> None:
        self.stopping = False

    async def turn(self) -> None:
        """Let other tasks run.

        Raises:
            Stopped: no further piece may begin.
        """
        await asyncio.sleep(0)
        if self.stopping:
            raise Stopped
