"""The structs into which the lines of a batch file are decoded.

`RawLine` and `RawBody` keep each member as written; the other bodies decode the usual forms. They
are a module of their own because msgspec reads the types of the fields, and compiled modules do
not keep them.
"""

import msgspec

Message = dict[str, object]


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One valid request line. `custom_id` and `body` are the bytes that the user wrote.

    `prompt` is the sort key that `prompts` makes: it orders lines so that neighbours share as much
    of their prompts as possible.
    """

    number: int
    custom_id: bytes
    name: str
    model: str
    body: bytes
    prompt: bytes


class PlainMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A message with a role, a text and nothing else, as nearly all are."""

    role: str
    content: str


class RawLine(msgspec.Struct, gc=False):
    """A line, with each member as written."""

    custom_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class RawBody(msgspec.Struct, gc=False):
    """The members of a body that are read, as written."""

    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


class PlainBody(msgspec.Struct, gc=False):
    """The members of a body that are read, if all of them have their usual types."""

    model: str
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: object = None
    messages: list[Message] | msgspec.UnsetType = msgspec.UNSET
    prompt: object = None
    input: object = None


class ChatBody(msgspec.Struct, gc=False):
    """A chat of plain messages, as nearly all are, without other members that order a prompt."""

    model: str
    messages: list[PlainMessage]
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: None = None
    prompt: None = None
    input: None = None


decode_line = msgspec.json.Decoder(RawLine).decode
decode_body = msgspec.json.Decoder(RawBody).decode
decode_plain_body = msgspec.json.Decoder(PlainBody).decode
decode_chat_body = msgspec.json.Decoder(ChatBody).decode
decode_text = msgspec.json.Decoder(str).decode
decode_messages = msgspec.json.Decoder(list[Message]).decode
