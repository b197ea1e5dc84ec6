"""Token counts, in the Responses vocabulary that the Batch object uses for every endpoint."""

from collections.abc import Collection

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one or many lines. All counts are whole tokens and never negative.

    One is made for each reply: a struct costs a tenth of what a frozen dataclass does.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input plus output; cached and reasoning tokens are parts of these, not extra."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def of_all(cls, usages: Collection["Usage"]) -> "Usage":
        """Return the sum; one call costs less than repeated addition."""
        return cls(
            input_tokens=sum([usage.input_tokens for usage in usages]),
            cached_tokens=sum([usage.cached_tokens for usage in usages]),
            output_tokens=sum([usage.output_tokens for usage in usages]),
            reasoning_tokens=sum([usage.reasoning_tokens for usage in usages]),
        )

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


NO_USAGE = Usage()
