"""What a reply says of the tokens that it took, in the vocabularies of OpenAI's endpoints.

By itself, since msgspec has to read the types of the fields, which a compiled module does not keep.
"""

import msgspec


class Details(msgspec.Struct):
    """Parts of a count."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct):
    """The counts of a reply, in the words of either endpoint."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None


class Reply(msgspec.Struct):
    """The one part of a reply that is looked into."""

    usage: Counts | None = None


decode_reply = msgspec.json.Decoder(Reply).decode
