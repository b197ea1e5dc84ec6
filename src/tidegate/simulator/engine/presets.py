"""Ready-made laws for common pairs of model and GPU: the orders of magnitude, not a measurement.

Inter-token times and prefill prices follow the reference tables that are published for these pairs;
KV sizes are 2 x layers x KV heads x head size x 2 bytes. Calibrate with a trace where it matters.
"""

from dataclasses import dataclass

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.engine.cost import Cost

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A law, and how many tokens of keys and values the GPU's memory holds."""

    cost: Cost
    kv_tokens: int


# Milliseconds of a step, microseconds of a prefilled token and of a decoding sequence, nanoseconds
# of a token of context; then GiB for keys and values, and the bytes of those of one token.
_TABLE: dict[str, tuple[float, float, float, float, float, int]] = {
    "llama-8b-h100": (8.0, 35.0, 25.0, 40.0, 48.0, 131_072),  # Llama 3.1 8B on one H100.
    "llama-8b-a100": (11.5, 80.0, 40.0, 65.0, 48.0, 131_072),  # Llama 3.1 8B on one A100 80 GB.
    "llama-8b-l40s": (21.0, 110.0, 60.0, 150.0, 22.0, 131_072),  # Llama 3.1 8B on one L40S.
    # Llama 3.3 70B on eight H100 by tensor parallelism.
    "llama-70b-h100x8": (20.0, 60.0, 60.0, 20.0, 380.0, 327_680),
    "qwen-3b-l40s": (10.0, 45.0, 40.0, 40.0, 36.0, 36_864),  # A 3B model on one L40S.
    "instant": (0.001, 0.0, 0.0, 0.0, 16.0, 131_072),  # No model: a step takes a microsecond.
}
PRESETS = {
    name: Preset(
        cost=Cost.of_seconds(
            fixed=step_ms / 1e3,
            prefill_token=prefill_us / 1e6,
            decode_seq=decode_us / 1e6,
            context_token=context_ns / 1e9,
        ),
        kv_tokens=int(kv_gib * GIB) // kv_bytes,
    )
    for name, (step_ms, prefill_us, decode_us, context_ns, kv_gib, kv_bytes) in _TABLE.items()
}


def preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        SettingsInvalid: there is none of that name.
    """
    found = PRESETS.get(name)
    if found is None:
        raise SettingsInvalid(f"There is no preset '{name}': use one of {', '.join(PRESETS)}.")
    return found
