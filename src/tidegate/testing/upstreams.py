"""An upstream that begins calls at once, as one does whose connections are free."""

import asyncio
import random

from typing_extensions import override

from tidegate.domain.errors import ReplyBroken, UpstreamFault
from tidegate.upstreams.base import Call, PendingCall, Receiver, Reply, StaleConnection, Upstream


class Begun(Upstream):
    """Stands before another upstream. While `tasks` is set, it begins most calls in these.

    Some calls it leaves to `send`, as where no connection is free; some stay unanswered, and have
    not reached the other upstream then.
    """

    def __init__(
        self,
        upstream: Upstream,
        chance: random.Random,
        *,
        left: float = 0.2,
        unanswered: float = 0.05,
    ) -> None:
        self._upstream = upstream
        self._chance = chance
        self._left = left
        self._unanswered = unanswered
        self.tasks: asyncio.TaskGroup | None = None

    @override
    async def send(self, call: Call) -> Reply:
        return await self._upstream.send(call)

    @override
    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        if self.tasks is None or self._chance.random() < self._left:
            return None
        under_way = _UnderWay(receiver)
        if self._chance.random() < self._unanswered:
            carried = under_way.hear_nothing()
        else:
            carried = under_way.carry(self._upstream, call)
        under_way.task = self.tasks.create_task(carried, name="begun call")
        return under_way

    @override
    async def aclose(self) -> None:
        await self._upstream.aclose()


class _UnderWay:
    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self.task: asyncio.Task[None] | None = None

    def abandon(self, receiver: Receiver) -> None:
        if self._receiver is receiver:
            self._receiver = None
            assert self.task is not None, "abandoned before it began"
            self.task.cancel()

    async def carry(self, upstream: Upstream, call: Call) -> None:
        try:
            self._hear(await upstream.send(call))
        except UpstreamFault as fault:
            self._hear(fault)
        except Exception as error:  # noqa: BLE001 - an upstream in a test may raise anything
            self._hear(ReplyBroken(f"The call failed in the test: {error}."))

    async def hear_nothing(self) -> None:
        self._hear(
            StaleConnection("The connection was closed as the call was written (simulated).")
        )

    def _hear(self, result: Reply | UpstreamFault) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_reply(result)
