"""Asking until the ledger answers: what to do about an unknown outcome (PROTOCOL 9)."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.processor.write_gate import WriteGate

T = TypeVar("T")
_PAUSE_SECONDS_MIN = 0.05
_PAUSE_SECONDS_MAX = 2.0


async def retry_until_answered(
    ask: Callable[[], Awaitable[T]], chance: random.Random, storage: WriteGate
) -> T:
    """Repeat the same question until it is answered, with pauses that double up to two seconds.

    Only for calls that may be repeated: a store gives a repeat its first answer, a blob store
    writes the same bytes under the same name. A full disk is waited for as well: freeing space
    mends it, and until then `storage` says that it is full. Any other error is an answer.
    """
    pause = _PAUSE_SECONDS_MIN
    with storage.waiting_write() as refusal:
        while True:
            try:
                return await ask()
            except StorageFull as error:
                refusal.hear(error)
            except StoreUnavailable:
                pass
            await asyncio.sleep(pause * (0.5 + chance.random()))
            pause = min(_PAUSE_SECONDS_MAX, pause * 2)
