"""What a cell and its child process say to each other: frames of a length and MessagePack.

A frame is four bytes of length, highest first, and as many bytes. The parent begins with `Setup`,
which the child answers with `Ready`; from then on each `Question` has one answer.
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


class FrameBroken(Exception):
    """What came is no frame of this talk, or too large a one."""


class Setup(msgspec.Struct, frozen=True):
    """What a child needs before its first call; `detail` is for the one who composed it.

    A child may use `memory_bytes_max` of address space, and `answer_seconds` for each answer.
    """

    detail: bytes
    memory_bytes_max: int
    answer_seconds: float


class Question(msgspec.Struct, frozen=True):
    """A call."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The child takes calls."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """A reply, of which the child has seen that it can be judged."""

    status: int
    headers: dict[str, str]
    body: bytes


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """No usable reply came. `kind` names the error, `phase` that of a time-out."""

    kind: str
    message: str
    phase: str = ""


class Crashed(msgspec.Struct, frozen=True, tag="crashed"):
    """The child ends by an error of its own; `what` names its kind and place, no content."""

    what: str


Said = Ready | Answer | Fault | Crashed
_said_decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
_encode = msgspec.msgpack.Encoder().encode


def framed(message: Setup | Question | Said) -> bytes:
    """Return a message as the bytes of its frame."""
    data = _encode(message)
    return len(data).to_bytes(HEAD_BYTES, "big") + data


def read_said(data: bytes) -> Said:
    """Return what a child said.

    Raises:
        FrameBroken: it makes no sense.
    """
    try:
        return _said_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise FrameBroken("what it wrote is no answer") from error


class FrameBuffer:
    """Cuts a stream of bytes into the contents of its frames."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; return the frames that are whole by now.

        Raises:
            FrameBroken: a frame announces more than `frame_bytes_max` bytes.
        """
        self._data += data
        found: list[bytes] = []
        while len(self._data) >= HEAD_BYTES:
            size = int.from_bytes(self._data[:HEAD_BYTES], "big")
            if size > self._frame_bytes_max:
                raise FrameBroken(
                    f"it announced {size} bytes, of which {self._frame_bytes_max} are allowed"
                )
            if len(self._data) < HEAD_BYTES + size:
                break
            found.append(bytes(memoryview(self._data)[HEAD_BYTES : HEAD_BYTES + size]))
            del self._data[: HEAD_BYTES + size]
        return found


def question_of(call: Call) -> Question:
    """Return a call as it goes to a child."""
    return Question(call.method, call.path, dict(call.headers), call.body)


def call_of(question: Question) -> Call:
    """Return a call as it came to a child."""
    return Call(
        method=question.method, path=question.path, headers=question.headers, body=question.body
    )


def answer_of(reply: Reply) -> Answer:
    """Return a reply as it goes to the parent."""
    return Answer(reply.status, dict(reply.headers), reply.body)


def reply_of(answer: Answer) -> Reply:
    """Return a reply as it came from a child."""
    return Reply(status=answer.status, headers=answer.headers, body=answer.body)


def fault_of(error: UpstreamFault) -> Fault:
    """Return an error as it goes to the parent; one of no known kind counts as a broken reply."""
    if isinstance(error, TimedOut):
        return Fault(TimedOut.__name__, str(error), error.phase)
    kind = type(error).__name__
    return Fault(kind if kind in _PLAIN_FAULTS else ReplyBroken.__name__, str(error))


def error_of(fault: Fault) -> UpstreamFault:
    """Return the error that a child met.

    Raises:
        FrameBroken: it is none of those that can be met.
    """
    if fault.kind == TimedOut.__name__:
        return TimedOut(fault.message, phase=fault.phase)
    kind = _PLAIN_FAULTS.get(fault.kind)
    if kind is None:
        raise FrameBroken("it reported an error that does not exist")
    return kind(fault.message)
