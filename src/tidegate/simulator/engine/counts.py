"""What an engine has done."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What an engine has done since it was made."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0
