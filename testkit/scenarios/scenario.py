"""Scenarios: what a deployment without faults does, in virtual time."""

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec

from tidegate.testing.deployment import Deployment, model_of, ok, request_line
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply

P = ParamSpec("P")
Story = Callable[[Deployment], Coroutine[None, None, None]]


# A context variable would be lost between a test's fixture and the test.
_deaf = [False]


@contextmanager
def with_signals(*, deaf: bool) -> Iterator[None]:
    """Run the scenarios of the block with a working pubsub, or with one that delivers nothing."""
    _deaf.append(deaf)
    try:
        yield
    finally:
        _deaf.pop()


def run_scenario(story: Story) -> None:
    """Run a story in a fresh deployment on a fresh virtual loop."""

    async def tell() -> None:
        await story(Deployment.make(deaf=_deaf[-1]))

    run_virtual(tell())


def scenario(
    test: Callable[Concatenate[Deployment, P], Coroutine[None, None, None]],
) -> Callable[P, None]:
    """Make an ordinary function of an async test whose first argument is a fresh deployment.

    It runs in virtual time. All other arguments are those that pytest gives.
    """

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        run_scenario(lambda world: test(world, *arguments, **named))

    # pytest reads which fixtures a test wants; the deployment is none of them.
    signature = inspect.signature(test)
    wanted = list(signature.parameters.values())[1:]
    setattr(run, "__signature__", signature.replace(parameters=wanted))  # noqa: B010 - functions have no such attribute for mypy
    return run


def now() -> float:
    """Return the seconds since the story began."""
    return asyncio.get_running_loop().time()


def lines(count: int, model: str = "m", prefix: str = "line") -> list[bytes]:
    """Return request lines for one model, with the custom_ids `prefix-0` and so on."""
    return [request_line(f"{prefix}-{number}", model) for number in range(count)]


async def at_once(call: Call) -> Reply:
    """Answer well and without delay."""
    return ok(model_of(call))


def fails(
    port: object, name: str, error: Exception, *, since: float = 0.0, until: float = math.inf
) -> None:
    """Let one method of a port raise this error from `since` until `until`, in loop time."""
    method = getattr(port, name)

    async def failing(*arguments: object, **named: object) -> object:
        if since <= now() < until:
            raise error
        return await method(*arguments, **named)

    setattr(port, name, failing)


def meets(port: object, name: str, before: Callable[[], None]) -> None:
    """Call `before` once, in the midst of the next call of one method of a port."""
    method = getattr(port, name)
    waiting = [before]

    async def met(*arguments: object, **named: object) -> object:
        answer = await method(*arguments, **named)
        if waiting:
            waiting.pop()()
        return answer

    setattr(port, name, met)
