"""The names of all settings, read off their types, and the refusal of any other name."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping

from tidegate.config.settings import Settings
from tidegate.domain.errors import SettingsInvalid

ANY_MODEL = "<model>"


def names(kind: object = Settings, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the type of every setting; `<model>` stands for any key."""
    for name, inner in members(kind).items():
        if members(inner):
            yield from names(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def refuse_unknown(tree: Mapping[object, object], kind: object, prefix: str, source: str) -> None:
    """Check every name of a tree against the type that it will become.

    Raises:
        SettingsInvalid: a name is unknown; the message names the nearest one. Or a single value
            is given for a group.
    """
    for name, value in tree.items():
        inner = refuse_unknown_name(str(name), kind, prefix, source)
        refuse_inside(value, inner, f"{prefix}.{name}" if prefix else str(name), source)


def refuse_unknown_name(name: str, kind: object, prefix: str, source: str) -> object:
    """Return the type of one setting inside a group.

    Raises:
        SettingsInvalid: there is no setting of that name.
    """
    known = members(kind)
    inner = known.get(name, known.get(ANY_MODEL))
    if inner is not None:
        return inner
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        hint = f": did you mean '{near[0]}'?"
    elif known:
        hint = f"; known here: {', '.join(known)}."
    else:
        hint = f": '{prefix}' is one value and has no settings inside."
    dotted = f"{prefix}.{name}" if prefix else name
    raise SettingsInvalid(f"unknown setting '{dotted}' in {source}{hint}")


def refuse_inside(value: object, kind: object, dotted: str, source: str) -> None:
    """Check what is given for one setting, if that setting is a group.

    Raises:
        SettingsInvalid: a name inside is unknown, or the value is not a group.
    """
    if not members(kind):
        return
    if isinstance(value, dict):
        refuse_unknown(value, kind, dotted, source)
    elif not (value is None and types.NoneType in typing.get_args(kind)):
        raise SettingsInvalid(
            f"'{dotted}' in {source} must be a group of names and values: "
            f"{', '.join(members(kind))}."
        )


def members(kind: object) -> dict[str, object]:
    """Return the settings inside a type: fields by name, or `<model>` if any key is allowed."""
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        inner = [members(item) for item in typing.get_args(kind)]
        return next((found for found in inner if found), {})
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = typing.get_args(kind)[1]
        return {ANY_MODEL: value} if dataclasses.is_dataclass(value) else {}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {item.name: hints[item.name] for item in dataclasses.fields(kind)}
    return {}


def is_compound(kind: object) -> bool:
    """Return whether text for this setting must be decoded: a group, a mapping or a list."""
    if members(kind):
        return True
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return any(is_compound(item) for item in typing.get_args(kind))
    return isinstance(origin, type) and issubclass(origin, (Mapping, tuple, list, frozenset))
