"""A bar for each contestant, as an SVG that needs nothing but itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
LEFT = 190  # Bars begin here; their names are left of it.
RIGHT = 130  # Room behind the longest bar for its figure.
ROW = 34
BAR = 22
TOP = 58
BOTTOM = 30
OURS_COLOUR = "#0b7285"
PEERS_COLOUR = "#adb5bd"


@dataclass(frozen=True)
class Bar:
    """One contestant: its figure, from the least to the most that was seen, and whether it is ours.

    A figure beyond the scale gets a bar that is cut, and says so.
    """

    name: str
    value: float
    least: float
    most: float
    is_ours: bool


def bars(title: str, unit: str, shown: Sequence[Bar], note: str) -> str:
    """Return the picture; the scale ends at the second largest figure if the largest dwarfs it."""
    ordered = sorted(bar.value for bar in shown)
    dwarfs = len(ordered) > 1 and ordered[-1] > 3 * ordered[-2]
    scale = (ordered[-2] if dwarfs else ordered[-1]) * 1.05
    height = TOP + ROW * len(shown) + BOTTOM
    rows = [_row(bar, number, scale, unit) for number, bar in enumerate(shown)]
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
                f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">'
            ),
            (
                "<style>text { font: 14px system-ui, sans-serif; fill: #212529 }"
                " .title { font-weight: 600; font-size: 16px } .note { font-size: 12px;"
                " fill: #495057 }</style>"
            ),
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff" rx="8"/>',
            f'<text class="title" x="20" y="32">{escape(title)}</text>',
            *rows,
            f'<text class="note" x="20" y="{height - 12}">{escape(note)}</text>',
            "</svg>",
            "",
        ]
    )


def _row(bar: Bar, number: int, scale: float, unit: str) -> str:
    top = TOP + ROW * number
    middle = top + BAR / 2
    room = WIDTH - LEFT - RIGHT
    is_cut = bar.value > scale
    width = room if is_cut else room * bar.value / scale
    end = LEFT + (width if is_cut else room * min(max(bar.value, bar.most), scale) / scale)
    colour = OURS_COLOUR if bar.is_ours else PEERS_COLOUR
    figure = f"{bar.value:,.0f} {unit}" if is_cut else f"{bar.value:.1f} {unit}"
    parts = [
        f'<text x="{LEFT - 10}" y="{middle + 5}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}" rx="3"/>',
        f'<text x="{end + 8:.1f}" y="{middle + 5}">{figure}</text>',
    ]
    if is_cut:
        gap = LEFT + width - 26
        parts.append(
            f'<path d="M{gap} {top - 3} l8 {BAR + 6} h6 l-8 -{BAR + 6} z" fill="#ffffff"/>'
        )
    elif bar.most > bar.least:
        low, high = (LEFT + room * min(value, scale) / scale for value in (bar.least, bar.most))
        parts.append(
            f'<path d="M{low:.1f} {middle} H{high:.1f} M{low:.1f} {middle - 4} v8 '
            f'M{high:.1f} {middle - 4} v8" stroke="#212529" stroke-width="1.2"/>'
        )
    return "\n".join(parts)
