"""`/v1/embeddings`: the same input, the same vector of length 1."""

import base64
import struct
from array import array
from hashlib import shake_256

import msgspec

from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.formats.texts import Names

_WHOLE = (
    '{"id":%s,"object":"list","created":%d,"model":%s,"data":[%s],'
    '"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":0,'
    '"prompt_tokens_details":null}}'
)
_VECTOR = '{"index":%d,"object":"embedding","embedding":%s}'
# One byte of a digest, as a number from -1 to 1.
_NUMBERS = [(byte - 127.5) / 127.5 for byte in range(256)]


class EmbeddingStyle(msgspec.Struct, frozen=True, kw_only=True):
    """Writes vectors."""

    names: Names
    seed: int
    dimensions: int
    is_base64: bool

    def around_word(self, choice: Choice) -> tuple[bytes, bytes] | None:
        """Return None: there is no stream of vectors."""
        del choice
        return None

    def first(self, choice: Choice) -> bytes:
        """Return nothing: there is no stream of vectors."""
        del choice
        return b""

    def delta(self, choice: Choice, start: int, stop: int) -> bytes:
        """Return nothing: there is no stream of vectors."""
        del choice, start, stop
        return b""

    def last(self, choice: Choice, start: int) -> bytes:
        """Return nothing: there is no stream of vectors."""
        del choice, start
        return b""

    def end(self, generation: Generation) -> bytes:
        """Return nothing: there is no stream of vectors."""
        del generation
        return b""

    def whole(self, generation: Generation) -> bytes:
        """Return one vector for each input."""
        tokens = sum(len(choice.request.prompt) for choice in generation.choices)
        vectors = [
            _VECTOR % (choice.index, self._vector(choice.request.prompt))
            for choice in generation.choices
        ]
        return (_WHOLE % (*self.names, ",".join(vectors), tokens, tokens)).encode()

    def _vector(self, prompt: "array[int]") -> str:
        key = b"%d:%b" % (self.seed, prompt.tobytes())
        data = shake_256(key).digest(self.dimensions)
        numbers = [_NUMBERS[byte] for byte in data]
        length = sum(number * number for number in numbers) ** 0.5
        numbers = [number / length for number in numbers]
        if self.is_base64:
            packed = struct.pack(f"<{len(numbers)}f", *numbers)
            return f'"{base64.b64encode(packed).decode()}"'
        return f"[{','.join([f'{number:.7f}' for number in numbers])}]"
