"""The token counts of a reply, by the member names of all of OpenAI's endpoints.

They are a module of their own because msgspec reads the types of the fields, and compiled modules
do not keep them.
"""

import msgspec


class Details(msgspec.Struct):
    """Parts of a token count."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct):
    """The token counts of a reply: each endpoint has its own names for them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None


class Reply(msgspec.Struct):
    """The only member of a reply that is decoded."""

    usage: Counts | None = None


decode_reply = msgspec.json.Decoder(Reply).decode
