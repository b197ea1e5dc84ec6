"""What an answer is like, without what it says: types by path, kinds of events, metric families."""

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec
from prometheus_client.parser import text_string_to_metric_families

# By path, as in `choices[].message.content`: the types that were there, in order, with a bar
# between them. The values of members that have few possible ones stand behind an equals sign.
Shape: TypeAlias = dict[str, str]
_TOLD = {"code", "object", "param", "role", "status", "type"}
_EVENT = re.compile(r"^event: ?(.*)$", re.MULTILINE)
_DATA = re.compile(r"^data: ?(.*)$", re.MULTILINE)
DONE = "[DONE]"


class Family(msgspec.Struct, frozen=True):
    """A family of metrics: its type, the names of its labels, and its buckets."""

    type: str
    labels: list[str]
    buckets: list[str] = []


def shape_of(value: object) -> Shape:
    """Return the types of a JSON value and of all that is in it."""
    found: dict[str, set[str]] = {}
    for path, kind in _walk(value, ""):
        found.setdefault(path, set()).add(kind)
    return {path: "|".join(sorted(kinds)) for path, kinds in found.items()}


def _walk(value: object, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict() if path.endswith("top_logprobs[]") and "token" not in value:
            # Its names are tokens.
            yield path, "numbers by token"
        case dict():
            yield path, "object"
            for name, member in value.items():
                yield from _walk(member, f"{path}.{name}" if path else str(name))
        case list():
            yield path, "list"
            for member in value:
                yield from _walk(member, f"{path}[]")
        case None:
            yield path, "null"
        case bool():
            yield path, "bool"
        case _:
            kind = "text" if isinstance(value, str) else "number"
            yield path, f"{kind}={value}" if _is_compared(path) else kind


def _is_compared(path: str) -> bool:
    return path.rpartition(".")[2] in _TOLD


def events_of(text: str) -> list[Shape]:
    """Return each kind of event of a stream once, in the order in which they came first.

    The name of an event stands under `event`; an end that is no JSON under `data`.
    """
    kinds: list[Shape] = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(_DATA.findall(block))
        if not block.strip() or not (data or _EVENT.search(block)):
            continue
        try:
            kind = shape_of(msgspec.json.decode(data))
        except msgspec.DecodeError:
            kind = {"data": data if data == DONE else "no JSON"}
        name = _EVENT.search(block)
        if name is not None:
            kind = {"event": name[1], **kind}
        if kind not in kinds:
            kinds.append(kind)
    return kinds


def families_of(text: str) -> Mapping[str, Family]:
    """Return the families of a page of metrics, by name."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        first = next((sample.labels for sample in family.samples), {})
        mine = {name: value for name, value in first.items() if name != "le"}
        buckets = [
            str(float(sample.labels["le"]))
            for sample in family.samples
            if "le" in sample.labels and mine.items() <= sample.labels.items()
        ]
        found[family.name] = Family(family.type, sorted(labels), buckets)
    return found
