"""Headers as HTTP/2 packs them (RFC 7541): everything is read, the plainest form is written."""

from collections import deque
from collections.abc import Iterable

from tidegate.upstreams.http2.faults import ProtocolBroken
from tidegate.upstreams.http2.tables import (
    END,
    FEWEST_BITS,
    MOST_BITS,
    STATIC_TABLE,
    huffman_codes,
)

TABLE_BYTES_MAX = 4096  # What the other side may have us remember; the protocol's own default.
ENTRY_BYTES = 32  # What the protocol counts for an entry beside its name and value.
INTEGER_BYTES_MAX = 5  # Of one number: enough for 32 bits.
TEXTS_KEPT_MAX = 256  # Strings remembered with what they stand for: servers repeat themselves.
TEXT_KEPT_BYTES_MAX = 128

_CODES = huffman_codes()
_STATIC_NAMES = {name: index + 1 for index, (name, _) in reversed([*enumerate(STATIC_TABLE)])}

_STATIC_FIELDS = {field: index + 1 for index, field in enumerate(STATIC_TABLE)}
_SECRET = frozenset({b"authorization"})
NEVER_KEPT = 0x10  # Nobody on the way may keep this header in a table.

Field = tuple[bytes, bytes]


def pack(fields: Iterable[Field]) -> bytes:
    """Return headers packed without a table of our own: nothing said once is kept anywhere."""
    packed = bytearray()
    for field in fields:
        index = _STATIC_FIELDS.get(field)
        if index is not None:
            packed.append(0x80 | index)
            continue
        name, value = field
        index = _STATIC_NAMES.get(name, 0)
        packed += _number(index, 4, NEVER_KEPT if name in _SECRET else 0)
        if not index:
            packed += _number(len(name), 7, 0) + name
        packed += _number(len(value), 7, 0) + value
    return bytes(packed)


def _number(value: int, prefix_bits: int, flags: int) -> bytes:
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((flags | value,))
    digits = bytearray((flags | most,))
    value -= most
    while value >= 128:  # noqa: PLR2004 -- seven bits to a byte
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


class Unpacker:
    """Unpacks the headers of one connection, whose table outlives each block of them."""

    def __init__(self) -> None:
        self._table: deque[Field] = deque()
        self._table_bytes = 0
        self._table_bytes_max = TABLE_BYTES_MAX
        self._texts: dict[bytes, bytes] = {}
        self._block = b""
        self._at = 0

    def unpack(self, block: bytes, bytes_max: int) -> list[Field] | None:
        """Return the headers of one block; None where they are larger than the bound.

        Where they are, the rest of the block is still read, as later blocks build on it. What a
        header counts is its name, its value and four bytes, as in HTTP/1.

        Raises:
            ProtocolBroken: the block can't be read; no later one can be, either.
        """
        self._block, self._at = block, 0
        fields: list[Field] | None = []
        seen = 0
        begun = False
        while self._at < len(block):
            byte = block[self._at]
            if byte & 0xE0 == 0x20:  # noqa: PLR2004 -- a new size for the table
                if begun:
                    raise ProtocolBroken("a header table that changes its size too late")
                self._resize(self._read_number(5))
                continue
            begun = True
            field = self._read_field(byte)
            seen += len(field[0]) + len(field[1]) + 4
            if seen > bytes_max:
                fields = None
            if fields is not None:
                fields.append(field)
        return fields

    def _read_field(self, byte: int) -> Field:
        if byte & 0x80:
            return self._entry(self._read_number(7))
        remembered = bool(byte & 0x40)
        index = self._read_number(6 if remembered else 4)
        name = self._entry(index)[0] if index else self._read_text()
        field = name, self._read_text()
        if remembered:
            self._remember(field)
        return field

    def _entry(self, index: int) -> Field:
        if not index:
            raise ProtocolBroken("a header of index 0")
        if index <= len(STATIC_TABLE):
            return STATIC_TABLE[index - 1]
        place = index - len(STATIC_TABLE) - 1
        if place >= len(self._table):
            raise ProtocolBroken("a header of an index that stands for none")
        return self._table[place]

    def _remember(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + ENTRY_BYTES
        self._shrink(self._table_bytes_max - size)
        if size <= self._table_bytes_max:
            self._table.appendleft(field)
            self._table_bytes += size

    def _resize(self, size: int) -> None:
        if size > TABLE_BYTES_MAX:
            raise ProtocolBroken("a header table larger than allowed")
        self._table_bytes_max = size
        self._shrink(size)

    def _shrink(self, size: int) -> None:
        while self._table and self._table_bytes > size:
            name, value = self._table.pop()
            self._table_bytes -= len(name) + len(value) + ENTRY_BYTES

    def _read_number(self, prefix_bits: int) -> int:
        block, at = self._block, self._at
        most = (1 << prefix_bits) - 1
        value = block[at] & most
        self._at += 1
        if value < most:
            return value
        for place, byte in enumerate(block[at + 1 : at + 1 + INTEGER_BYTES_MAX]):
            self._at += 1
            value += (byte & 127) << 7 * place
            if byte < 128:  # noqa: PLR2004 -- the last byte
                return value
        raise ProtocolBroken("a number in a header without an end")

    def _read_text(self) -> bytes:
        if self._at >= len(self._block):
            raise ProtocolBroken("a header without an end")
        coded = self._block[self._at] & 0x80
        length = self._read_number(7)
        text = self._block[self._at : self._at + length]
        if len(text) < length:
            raise ProtocolBroken("a header without an end")
        self._at += length
        return self._decoded(text) if coded else text

    def _decoded(self, text: bytes) -> bytes:
        known = self._texts.get(text)
        if known is not None:
            return known
        decoded = decode_huffman(text)
        if len(text) <= TEXT_KEPT_BYTES_MAX:
            if len(self._texts) >= TEXTS_KEPT_MAX:
                self._texts.clear()
            self._texts[text] = decoded
        return decoded


def decode_huffman(text: bytes) -> bytes:
    """Return what a coded string stands for.

    Raises:
        ProtocolBroken: it is no such string.
    """
    decoded = bytearray()
    code, length = 1, 0
    for byte in text:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            length += 1
            if length < FEWEST_BITS:
                continue
            symbol = _CODES.get(code)
            if symbol is not None:
                if symbol == END:
                    raise ProtocolBroken("a header that ends within itself")
                decoded.append(symbol)
                code, length = 1, 0
            elif length > MOST_BITS:
                raise ProtocolBroken("a header in no known code")
    # Fewer than eight ones may fill the last byte.
    if length >= 8 or code != (1 << length + 1) - 1:  # noqa: PLR2004 -- bits of a byte
        raise ProtocolBroken("a header with a wrong end")
    return bytes(decoded)
