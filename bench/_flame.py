"""Sampled stacks as a flame graph in one SVG file, and as tables in plain text."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, MARGIN = 1_600, 17, 8
LETTER_WIDTH = 6.6
# Narrower boxes say nothing; they are left out, their time still stands in the box below.
WIDTH_MIN = 0.4
SHOWN = 25
# A frame at the bottom of nearly every sample, such as the loop itself, explains nothing.
TRUNK_SHARE = 0.9

_HEAD = re.compile(r"^(Current thread|Thread|Stack)\b.*most recent call first")
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$')
_PACKAGE = re.compile(r"^.*/(?:site-packages|src|lib/python3\.\d+|bench)/")


@dataclass(frozen=True)
class Frame:
    """One function on a stack, and the line where it was."""

    file: str
    line: int
    function: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.function}"

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} {self.function}"


Stack = tuple[Frame, ...]


def stacks(text: str) -> Iterator[Stack]:
    """Read what `faulthandler` wrote; each stack begins with the outermost function."""
    frames: list[Frame] = []
    for line in text.splitlines():
        found = _FRAME.match(line)
        if found:
            frames.append(Frame(_PACKAGE.sub("", found[1]), int(found[2]), found[3]))
        elif _HEAD.match(line) and frames:
            yield tuple(reversed(frames))
            frames = []
    if frames:
        yield tuple(reversed(frames))


@dataclass
class _Box:
    count: int = 0
    inner: dict[str, "_Box"] = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((box.depth() for box in self.inner.values()), default=0)


def flame_graph(samples: Sequence[Stack], title: str) -> str:
    """Return an SVG: the outermost function is at the bottom, width is time. Hover for numbers."""
    root = _Box()
    for stack in samples:
        box = root
        box.count += 1
        for frame in stack:
            box = box.inner.setdefault(frame.name, _Box())
            box.count += 1
    height = (root.depth() + 2) * ROW + 2 * MARGIN
    drawn = "\n".join(_boxes(root, "all", MARGIN, height - MARGIN - ROW, root.count))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="#fffdf5"/>\n'
        f'<text x="{MARGIN}" y="{MARGIN + 12}" font-size="14">{escape(title)}</text>\n'
        f"{drawn}\n</svg>\n"
    )


def _boxes(box: _Box, name: str, left: float, top: float, total: int) -> Iterator[str]:
    width = (WIDTH - 2 * MARGIN) * box.count / total if total else 0.0
    if width < WIDTH_MIN:
        return
    label = f"{name} ({box.count} samples, {100 * box.count / total:.1f} %)"
    fits = int((width - 4) / LETTER_WIDTH)
    short = name.rpartition("/")[2]
    text = short if len(short) <= fits else short[: max(0, fits - 1)] + "…"
    yield (
        f'<g><title>{escape(label)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
        f'height="{ROW - 1}" rx="2" fill="{_colour(name)}"/>'
        + (f'<text x="{left + 2:.1f}" y="{top + 12}">{escape(text)}</text>' if fits > 3 else "")
        + "</g>"
    )
    for inner_name, inner in sorted(box.inner.items()):
        yield from _boxes(inner, inner_name, left, top - ROW, total)
        left += (WIDTH - 2 * MARGIN) * inner.count / total


def _colour(name: str) -> str:
    """Ours is warm, what we stand on is cool; each function keeps its shade."""
    shade = zlib.crc32(name.encode()) % 40
    hue = 15 + shade if name.startswith("tidegate/") else 190 + shade
    return f"hsl({hue},70%,72%)"


def tables(samples: Sequence[Stack], cpu_us: float) -> str:
    """Return where `cpu_us` of CPU went: by line, by function alone, by function with all below."""
    lines = Counter(stack[-1].place for stack in samples)
    alone = Counter(stack[-1].name for stack in samples)
    within = Counter(name for stack in samples for name in {frame.name for frame in stack})
    trunk = len(samples) * TRUNK_SHARE
    within = Counter({name: count for name, count in within.items() if count < trunk})
    parts = [
        ("self time by function", alone),
        ("self time by line", lines),
        ("time by function, with what it calls", within),
    ]
    return "\n".join(_table(title, counts, len(samples), cpu_us) for title, counts in parts)


def _table(title: str, counts: Counter[str], total: int, cpu_us: float) -> str:
    rows: Iterable[tuple[str, int]] = counts.most_common(SHOWN)
    said = [f"{title} (of {total} samples)", "     %      µs"]
    said += [
        f"{100 * count / total:6.1f} {cpu_us * count / total:7.2f}  {name}" for name, count in rows
    ]
    return "\n".join(said) + "\n"
