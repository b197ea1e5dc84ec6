"""Whether the hot path of this installation is compiled: wheels may have it so (record 13)."""

from importlib.machinery import SOURCE_SUFFIXES

from tidegate.runtime import limiter


def is_compiled() -> bool:
    """Say so; one module of the hot path stands for all, since they are compiled together."""
    return not (limiter.__file__ or "").endswith(tuple(SOURCE_SUFFIXES))


def told() -> str:
    """Return the same in words, for people who ask which version this is."""
    return "hot path compiled" if is_compiled() else "hot path interpreted"
