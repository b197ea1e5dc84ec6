"""From what an engine does to the batches of events that vLLM would publish."""

from array import array
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from typing_extensions import override

from tidegate.simulator.engine.listener import Listener, Steps
from tidegate.simulator.engine.sequence import Request, Sequence

RANK = 0
_MEDIUM = "GPU"
_KIND = "full_attention"


class BlockStored(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Blocks in a row can be found from now on; the first comes after `parent_block_hash`."""

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str
    lora_name: str | None
    extra_keys: list[list[str] | None]
    group_idx: int
    kv_cache_spec_kind: str


class BlockRemoved(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Blocks can be found no longer."""

    block_hashes: list[int]
    medium: str
    group_idx: int


class AllBlocksCleared(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Nothing can be found any longer."""


Event: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """The events of one step, in order, with the time in seconds."""

    ts: float
    events: list[Event]
    data_parallel_rank: int = RANK


class EventFeed(Listener):
    """Listens to an engine; hands on one batch for each step in which blocks came or went.

    Args:
        block_size: tokens of a block.
        publish: takes a batch.
        now: returns seconds since the epoch.
        adapter_id: returns the number of an adapter by its name.
    """

    hears_blocks = True

    def __init__(
        self,
        block_size: int,
        publish: Callable[[Batch], None],
        now: Callable[[], float],
        adapter_id: Callable[[str], int | None],
    ) -> None:
        self._block_size = block_size
        self._publish = publish
        self._now = now
        self._adapter_id = adapter_id
        self._events: list[Event] = []

    @override
    def blocks_stored(self, sequence: Sequence, indexes: list[int]) -> None:
        start = previous = indexes[0]
        for index in indexes[1:]:
            if index != previous + 1:
                self._events.append(self._stored(sequence, start, previous + 1))
                start = index
            previous = index
        self._events.append(self._stored(sequence, start, previous + 1))

    @override
    def block_removed(self, known: int) -> None:
        self._events.append(BlockRemoved([known], _MEDIUM, 0))

    @override
    def cache_cleared(self) -> None:
        self._events.append(AllBlocksCleared())
        self.flush()

    @override
    def stepped(self, steps: Steps) -> None:
        self.flush()

    def flush(self) -> None:
        """Hand on what has come; what happens between steps has no other end."""
        if self._events:
            events, self._events = self._events, []
            self._publish(Batch(self._now(), events))

    def _stored(self, sequence: Sequence, start: int, stop: int) -> BlockStored:
        size, lora = self._block_size, sequence.request.lora
        hashes = sequence.hashes(stop, size)
        ids = array("I", sequence.ids(start * size, stop * size))
        return BlockStored(
            block_hashes=hashes[start:stop],
            parent_block_hash=hashes[start - 1] if start else None,
            token_ids=ids.tolist(),
            block_size=size,
            lora_id=None if lora is None else self._adapter_id(lora),
            medium=_MEDIUM,
            lora_name=lora,
            extra_keys=[_extra(sequence.request, index) for index in range(start, stop)],
            group_idx=0,
            kv_cache_spec_kind=_KIND,
        )


def _extra(request: Request, index: int) -> list[str] | None:
    """Return what else a block's hash stands for: the adapter, and of the first block the salt."""
    keys = [] if request.lora is None else [request.lora]
    if request.salt and not index:
        keys.append(request.salt)
    return keys or None
