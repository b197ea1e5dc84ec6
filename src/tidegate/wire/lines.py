"""What a line of a batch file holds, as decoders read it: as written, or in its usual form.

By itself, since msgspec has to read the types of the fields, which a compiled module does not keep.
"""

import msgspec

Message = dict[str, object]


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One sound request line. `custom_id` and `body` are the bytes that the user wrote.

    `prompt` orders lines so that neighbours share as much prompt as possible: what an engine
    renders first comes first, in a canonical spelling and shortened as `prompts` says.
    """

    number: int
    custom_id: bytes
    name: str
    model: str
    body: bytes
    prompt: bytes


class Said(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A message that holds what nearly every one holds, and nothing else."""

    role: str
    content: str


class RawLine(msgspec.Struct, gc=False):
    """A line, and each of its members, as written."""

    custom_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class RawBody(msgspec.Struct, gc=False):
    """What is looked at in a body, as written."""

    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


class PlainBody(msgspec.Struct, gc=False):
    """What is looked at in a body, where all of it is of the usual types."""

    model: str
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: object = None
    messages: list[Message] | msgspec.UnsetType = msgspec.UNSET
    prompt: object = None
    input: object = None


class ChatBody(msgspec.Struct, gc=False):
    """What nearly every chat is. What else orders a prompt is not in it."""

    model: str
    messages: list[Said]
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: None = None
    prompt: None = None
    input: None = None


decode_line = msgspec.json.Decoder(RawLine).decode
decode_body = msgspec.json.Decoder(RawBody).decode
decode_plain = msgspec.json.Decoder(PlainBody).decode
decode_chat = msgspec.json.Decoder(ChatBody).decode
decode_text = msgspec.json.Decoder(str).decode
decode_messages = msgspec.json.Decoder(list[Message]).decode
