"""Telling a story: what a deployment without faults of its own does, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine

from tidegate.testing.deployment import Deployment, model_of, ok, request_line
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply

Story = Callable[[Deployment], Coroutine[None, None, None]]


def told(story: Story) -> None:
    """Run a story in a fresh deployment on a fresh virtual loop."""

    async def tell() -> None:
        await story(Deployment.make())

    run_virtual(tell())


def now() -> float:
    """Return the seconds since the story began."""
    return asyncio.get_running_loop().time()


def lines(count: int, model: str = "m", prefix: str = "line") -> list[bytes]:
    """Return request lines for one model, with the custom_ids `prefix-0` and so on."""
    return [request_line(f"{prefix}-{number}", model) for number in range(count)]


async def at_once(call: Call) -> Reply:
    """Answer well and without delay."""
    return ok(model_of(call))
