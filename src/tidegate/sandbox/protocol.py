"""The messages between a sandbox and its child process: MessagePack in frames with a length.

A frame is the length of its content in four bytes, big-endian, and the content. The parent sends
`ChildSetup`, which the child answers with `ChildReady`; after that each `ChildCall` has one answer.
"""

import msgspec

from tidegate.domain.errors import (
    ConnectFailed,
    ReplyBroken,
    ReplyTooLarge,
    TimedOut,
    UpstreamFault,
)
from tidegate.upstreams.base import Call, Reply

HEAD_BYTES = 4
_PLAIN_FAULTS = {kind.__name__: kind for kind in (ConnectFailed, ReplyBroken, ReplyTooLarge)}


class InvalidFrame(Exception):
    """A frame is too large, or its content is no message."""


class ChildSetup(msgspec.Struct, frozen=True):
    """What a child needs before its first call; its program decodes `detail`.

    It may use `memory_bytes_max` of address space, and `answer_seconds` for each answer.
    """

    detail: bytes
    memory_bytes_max: int
    answer_seconds: float


class ChildCall(msgspec.Struct, frozen=True):
    """A call."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class ChildReady(msgspec.Struct, frozen=True, tag="ready"):
    """The child takes calls."""


class ChildReply(msgspec.Struct, frozen=True, tag="answer"):
    """A reply that the child has validated."""

    status: int
    headers: dict[str, str]
    body: bytes


class ChildFault(msgspec.Struct, frozen=True, tag="fault"):
    """No usable reply came. `kind` names the error, `phase` the phase of a time-out."""

    kind: str
    message: str
    phase: str = ""


class ChildCrashed(msgspec.Struct, frozen=True, tag="crashed"):
    """The child ends because of a bug; `what` is the type and place of the error, no content."""

    what: str


ChildMessage = ChildReady | ChildReply | ChildFault | ChildCrashed
_message_decoder: msgspec.msgpack.Decoder[ChildMessage] = msgspec.msgpack.Decoder(ChildMessage)
_encode = msgspec.msgpack.Encoder().encode


def encode_frame(message: ChildSetup | ChildCall | ChildMessage) -> bytes:
    """Return the frame of a message."""
    data = _encode(message)
    return len(data).to_bytes(HEAD_BYTES, "big") + data


def decode_child_message(data: bytes) -> ChildMessage:
    """Return the message of a child.

    Raises:
        InvalidFrame: the content is no message.
    """
    try:
        return _message_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidFrame("what it wrote is no answer") from error


class FrameBuffer:
    """Splits a stream of bytes into the contents of its frames."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; return the contents of the frames that are complete.

        Raises:
            InvalidFrame: a frame announces more than `frame_bytes_max` bytes.
        """
        self._data += data
        found: list[bytes] = []
        while len(self._data) >= HEAD_BYTES:
            size = int.from_bytes(self._data[:HEAD_BYTES], "big")
            if size > self._frame_bytes_max:
                raise InvalidFrame(
                    f"it announced {size} bytes, of which {self._frame_bytes_max} are allowed"
                )
            if len(self._data) < HEAD_BYTES + size:
                break
            found.append(bytes(memoryview(self._data)[HEAD_BYTES : HEAD_BYTES + size]))
            del self._data[: HEAD_BYTES + size]
        return found


def child_call_from(call: Call) -> ChildCall:
    """Convert a call for the child."""
    return ChildCall(call.method, call.path, dict(call.headers), call.body)


def call_from(question: ChildCall) -> Call:
    """Convert a call back in the child."""
    return Call(
        method=question.method, path=question.path, headers=question.headers, body=question.body
    )


def child_reply_from(reply: Reply) -> ChildReply:
    """Convert a reply for the parent."""
    return ChildReply(reply.status, dict(reply.headers), reply.body)


def reply_from(answer: ChildReply) -> Reply:
    """Convert a reply back in the parent."""
    return Reply(status=answer.status, headers=answer.headers, body=answer.body)


def child_fault_from(error: UpstreamFault) -> ChildFault:
    """Convert an error for the parent; an unknown kind becomes a broken reply."""
    if isinstance(error, TimedOut):
        return ChildFault(TimedOut.__name__, str(error), error.phase)
    kind = type(error).__name__
    return ChildFault(kind if kind in _PLAIN_FAULTS else ReplyBroken.__name__, str(error))


def error_from(fault: ChildFault) -> UpstreamFault:
    """Convert an error back in the parent.

    Raises:
        InvalidFrame: its kind is unknown.
    """
    if fault.kind == TimedOut.__name__:
        return TimedOut(fault.message, phase=fault.phase)
    kind = _PLAIN_FAULTS.get(fault.kind)
    if kind is None:
        raise InvalidFrame("it reported an error that does not exist")
    return kind(fault.message)
