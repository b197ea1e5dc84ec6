"""The size of an engine, in the words of vLLM's engine arguments."""

from dataclasses import dataclass
from enum import StrEnum

from tidegate.domain.errors import SettingsInvalid

BLOCK_SIZES = (8, 16, 32, 64, 128)


class Policy(StrEnum):
    """Who leaves the waiting queue first."""

    FCFS = "fcfs"  # In the order of arrival.
    PRIORITY = "priority"  # The lowest priority number first, then in the order of arrival.


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How much one engine holds.

    `kv_blocks` blocks of `block_size` tokens hold the keys and values of all sequences;
    `max_num_seqs` sequences run at once; one step computes `max_num_batched_tokens` tokens at
    most. A request may have `max_model_len` tokens, prompt and output together.
    """

    kv_blocks: int = 8_192
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8_192
    max_model_len: int = 32_768
    policy: Policy = Policy.FCFS
    prefix_caching: bool = True
    max_loras: int = 1

    def __post_init__(self) -> None:
        if self.block_size not in BLOCK_SIZES:
            raise SettingsInvalid(
                f"block_size must be one of {', '.join(map(str, BLOCK_SIZES))}, "
                f"not {self.block_size}."
            )
        for name in ("kv_blocks", "max_num_seqs", "max_model_len", "max_loras"):
            if getattr(self, name) < 1:
                raise SettingsInvalid(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise SettingsInvalid(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least "
                f"max_num_seqs ({self.max_num_seqs}): each running sequence needs a token a step."
            )
        if self.kv_blocks * self.block_size < self.max_model_len:
            raise SettingsInvalid(
                f"A request of max_model_len {self.max_model_len} tokens does not fit into "
                f"{self.kv_blocks} blocks of {self.block_size}: raise kv_blocks or lower "
                "max_model_len."
            )
