"""Foreign text made safe for a terminal: a server must not be able to control it."""

TEXT_CHARACTERS_MAX = 500


def sanitize(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return text on one line, shortened, with a replacement for unprintable characters."""
    joined = " ".join(text.split())
    shown = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in joined
    )
    return shown if len(shown) <= characters_max else f"{shown[:characters_max]}…"
