"""The record of a line in the plan blob: a fixed head, the custom_id, and the body as written."""

import struct
from collections.abc import Iterable, Iterator
from itertools import starmap

import msgspec

_HEAD = struct.Struct(">III")
HEAD_BYTES = _HEAD.size


class PlanLine(msgspec.Struct, frozen=True, gc=False):
    """One line of a shard. `custom_id` is a JSON string as written, `body` a JSON object."""

    number: int
    custom_id: bytes
    body: bytes


def pack(number: int, custom_id: bytes, body: bytes) -> bytes:
    """Return the record of one line."""
    return pack_head(number, custom_id, body) + custom_id + body


def pack_head(number: int, custom_id: bytes, body: bytes) -> bytes:
    """Return the head of the record of one line."""
    return _HEAD.pack(number, len(custom_id), len(body))


def pack_heads(lines: Iterable[tuple[int, int, int]]) -> list[bytes]:
    """Return heads, given the number and the lengths of custom_id and body of each line."""
    return list(starmap(_HEAD.pack, lines))


def unpack_all(data: bytes) -> Iterator[PlanLine]:
    """Yield the lines of a shard, whose bytes must be whole records."""
    position = 0
    while position < len(data):
        number, id_length, body_length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        middle = position + id_length
        end = middle + body_length
        assert end <= len(data), "a plan record is cut off"
        yield PlanLine(number, data[position:middle], data[middle:end])
        position = end
