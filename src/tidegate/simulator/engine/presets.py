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
    about: str


def _preset(  # noqa: PLR0913 - one name for each price
    about: str,
    *,
    step_ms: float,
    prefill_us: float,
    decode_us: float,
    context_ns: float,
    kv_gib: float,
    kv_bytes: int,
) -> Preset:
    return Preset(
        cost=Cost.of_seconds(
            fixed=step_ms / 1e3,
            prefill_token=prefill_us / 1e6,
            decode_seq=decode_us / 1e6,
            context_token=context_ns / 1e9,
        ),
        kv_tokens=int(kv_gib * GIB) // kv_bytes,
        about=about,
    )


PRESETS: dict[str, Preset] = {
    "llama-8b-h100": _preset(
        "Llama 3.1 8B on one H100",
        step_ms=8.0,
        prefill_us=35.0,
        decode_us=25.0,
        context_ns=40.0,
        kv_gib=48.0,
        kv_bytes=131_072,
    ),
    "llama-8b-a100": _preset(
        "Llama 3.1 8B on one A100 80 GB",
        step_ms=11.5,
        prefill_us=80.0,
        decode_us=40.0,
        context_ns=65.0,
        kv_gib=48.0,
        kv_bytes=131_072,
    ),
    "llama-8b-l40s": _preset(
        "Llama 3.1 8B on one L40S",
        step_ms=21.0,
        prefill_us=110.0,
        decode_us=60.0,
        context_ns=150.0,
        kv_gib=22.0,
        kv_bytes=131_072,
    ),
    "llama-70b-h100x8": _preset(
        "Llama 3.3 70B on eight H100 by tensor parallelism",
        step_ms=20.0,
        prefill_us=60.0,
        decode_us=60.0,
        context_ns=20.0,
        kv_gib=380.0,
        kv_bytes=327_680,
    ),
    "qwen-3b-l40s": _preset(
        "A 3B model on one L40S",
        step_ms=10.0,
        prefill_us=45.0,
        decode_us=40.0,
        context_ns=40.0,
        kv_gib=36.0,
        kv_bytes=36_864,
    ),
    "instant": _preset(
        "No model at all: a step takes a microsecond",
        step_ms=0.001,
        prefill_us=0.0,
        decode_us=0.0,
        context_ns=0.0,
        kv_gib=16.0,
        kv_bytes=131_072,
    ),
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
