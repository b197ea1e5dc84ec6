"""A receiver for a task that waits for the reply to one call."""

import asyncio

from tidegate.domain.errors import UpstreamFault
from tidegate.upstreams.base import Reply


class ReplyWaiter:
    """Sets `future`, which a task awaits, to the reply or the fault of a call."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Wake the task, unless it was cancelled meanwhile."""
        if self.future.done():
            return
        if isinstance(result, UpstreamFault):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)

    def forget(self) -> None:
        """Mark a fault as retrieved if it arrived together with the cancellation."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()
