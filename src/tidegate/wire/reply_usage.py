"""The token counts of a reply, by the member names of all of OpenAI's endpoints.

They are a module of their own because msgspec reads the types of the fields, and compiled modules
do not keep them.
"""

import msgspec


class ReplyUsageDetails(msgspec.Struct):
    """Parts of a token count."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ReplyUsage(msgspec.Struct):
    """The token counts of a reply: each endpoint has its own names for them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: ReplyUsageDetails | None = None
    completion_tokens_details: ReplyUsageDetails | None = None
    input_tokens_details: ReplyUsageDetails | None = None
    output_tokens_details: ReplyUsageDetails | None = None


class ReplyWithUsage(msgspec.Struct):
    """The only member of a reply that is decoded."""

    usage: ReplyUsage | None = None


decode_reply = msgspec.json.Decoder(ReplyWithUsage).decode
