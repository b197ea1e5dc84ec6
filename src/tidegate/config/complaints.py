"""What is wrong with the settings: where, and what to write instead."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from tidegate.config.names import ANY_MODEL, members
from tidegate.domain.errors import SettingsInvalid

GROUP = "must be a group of names and values"
# By the beginning of the kind of complaint; the rest speaks for itself.
WORDS = {
    "missing": "is required",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text; in YAML, put it in quotes",
    "path": "must be a path, written as text",
    "tuple": "must be a list",
    "mapping": GROUP,
    "dict": GROUP,
    "dataclass": GROUP,
}


def explained(error: ValidationError) -> SettingsInvalid:
    """Return one error that names every wrong setting by its dotted name."""
    found = [
        f"{'.'.join(str(part) for part in item['loc'])} {_words(item['type'], item['msg'])}"
        for item in error.errors(include_url=False)
    ]
    return SettingsInvalid("Wrong settings: " + "; ".join(found) + ".")


def located(error: SettingsInvalid, tree: Mapping[str, object], kind: object) -> SettingsInvalid:
    """Return what a group complained about with the dotted name of that group in front."""
    for path, group, value in _groups(tree, kind, ()):
        try:
            TypeAdapter(group).validate_python(value)
        except SettingsInvalid as found:
            return SettingsInvalid(_prefixed(str(found), path, group))
        except ValidationError:
            continue
    return error


def _words(kind: str, message: str) -> str:
    for start, words in WORDS.items():
        if kind == start or kind.startswith(f"{start}_"):
            return words
    return message.replace("Input should", "must", 1)


def _groups(
    tree: Mapping[str, object], kind: object, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], type[object], object]]:
    """Yield every group that is given and checks itself, the innermost first."""
    known = members(kind)
    for name, value in tree.items():
        inner = known.get(name, known.get(ANY_MODEL))
        if isinstance(value, dict) and members(inner):
            yield from _groups(value, inner, (*path, name))
            for group in (inner, *typing.get_args(inner)):
                if isinstance(group, type) and dataclasses.is_dataclass(group):
                    yield (*path, name), group, value


def _prefixed(message: str, path: tuple[str, ...], kind: object) -> str:
    whole = ".".join(path)
    first = message.partition(" ")[0]
    if f"{whole}." in message:
        return message
    if first in members(kind):
        return f"{whole}.{message}"
    if first.partition(".")[0] == path[-1]:
        return ".".join((*path[:-1], message))
    return f"{whole}: {message}"
