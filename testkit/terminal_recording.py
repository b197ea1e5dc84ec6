"""States of a terminal as one animated SVG: no script, and the last state where nothing moves."""

import io
from collections.abc import Sequence
from html import escape

from rich.console import Console
from rich.text import Text

FRAMES_MAX = 16
HOLD_SECONDS = 4.0  # How long the last frame stays before the animation begins again.
# Of each frame only what is drawn; the window around all of them is drawn once.
_FRAME = "{styles}\x00<defs>{lines}</defs>{backgrounds}{matrix}\x00{width}\x00{height}"
_MARGIN, _BAR = 14, 44


def animated(frames: Sequence[tuple[float, str]], *, title: str, columns: int) -> str:
    """Return an SVG that shows each frame (its time in seconds, its text with ANSI colours)."""
    chosen = thinned(frames)
    rows = max(text.count("\n") + 1 for _, text in chosen)
    drawn = [
        frame(text, f"f{number}", columns=columns, rows=rows)
        for number, (_, text) in enumerate(chosen)
    ]
    begin = chosen[0][0]
    total = chosen[-1][0] - begin + HOLD_SECONDS
    styles, groups = [], []
    for number, (style, body, _, _) in enumerate(drawn):
        is_last = number == len(drawn) - 1
        start = (chosen[number][0] - begin) / total * 100
        end = 100 if is_last else (chosen[number + 1][0] - begin) / total * 100
        styles.append(style)
        styles.append(moving(number, start, end))
        groups.append(f'<g id="g{number}"{"" if is_last else HIDDEN}>{body}</g>')
    width = max(item[2] for item in drawn) + 2 * _MARGIN
    height = max(item[3] for item in drawn) + _BAR + _MARGIN
    return window(width, height, title, "\n".join(styles), "\n".join(groups), total)


HIDDEN = ' visibility="hidden"'


def thinned(frames: Sequence[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    """Return the frames that differ from the one before, at most `FRAMES_MAX`, with both ends."""
    changed = [item for n, item in enumerate(frames) if not n or item[1] != frames[n - 1][1]]
    if len(changed) <= FRAMES_MAX:
        return changed
    last = len(changed) - 1
    return [changed[round(n * last / (FRAMES_MAX - 1))] for n in range(FRAMES_MAX)]


def frame(text: str, name: str, *, columns: int, rows: int) -> tuple[str, str, float, float]:
    """Return the styles, the drawing, the width and the height of one frame."""
    console = Console(
        record=True, width=columns, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(Text.from_ansi(text), end="\n" * (rows - text.count("\n")))
    style, body, width, height = console.export_svg(
        code_format=_FRAME, unique_id=name, title=""
    ).split("\x00")
    return style, body, float(width), float(height)


def moving(number: int, start: float, end: float) -> str:
    """Return the rules that show a frame between two moments, in percent of the whole."""
    before = "" if start == 0 else "0% { visibility: hidden } "
    after = "" if end == 100 else f" {end:.2f}%, 100% {{ visibility: hidden }}"  # noqa: PLR2004
    return (
        f"@keyframes k{number} {{ {before}{start:.2f}% {{ visibility: visible }}{after} }}\n"
        f"#g{number} {{ animation-name: k{number} }}"
    )


def window(
    width: float, height: float, title: str, styles: str, groups: str, seconds: float
) -> str:
    """Return the whole picture."""
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}">
<title>{escape(title)}</title>
<style>
text {{ font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: 20px; line-height: 24.4px; font-variant-east-asian: full-width }}
g[id] {{ animation-duration: {seconds:.2f}s; animation-iteration-count: infinite;
  animation-timing-function: steps(1, end) }}
@media (prefers-reduced-motion: reduce) {{ g[id] {{ animation: none }} }}
{styles}
</style>
<rect width="100%" height="100%" rx="8" fill="#292929"/>
<g transform="translate(22,22)"><circle r="7" fill="#ff5f57"/>
<circle cx="22" r="7" fill="#febc2e"/><circle cx="44" r="7" fill="#28c840"/></g>
<text x="50%" y="28" text-anchor="middle" fill="#c5c8c6">{escape(title)}</text>
<g transform="translate({_MARGIN},{_BAR})">
{groups}
</g>
</svg>
"""
