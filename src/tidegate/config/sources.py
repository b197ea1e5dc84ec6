"""Each source of settings as a tree: a file, the environment, the command line."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import yaml

from tidegate.config.names import (
    ANY_MODEL,
    is_compound,
    members,
    refuse_inside,
    refuse_unknown,
    refuse_unknown_name,
)
from tidegate.config.settings import Settings
from tidegate.config.yaml_file import read_yaml
from tidegate.domain.errors import SettingsInvalid

PREFIX = "TIDEGATE_"
FILE_VARIABLE = "TIDEGATE_CONFIG"
FILE_BYTES_MAX = 2**20

# Variables that Kubernetes puts into every container beside a service named `tidegate`.
SERVICE_LINK = re.compile(
    r"TIDEGATE_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")

Tree = dict[str, object]


def file_tree(path: Path, origins: dict[str, str]) -> Tree:
    """Read a YAML or TOML file, by its suffix.

    Raises:
        SettingsInvalid: it can't be read, or holds an unknown name.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SettingsInvalid(f"The file {path} can't be read: {exc.strerror}.") from exc
    if len(data) > FILE_BYTES_MAX:
        raise SettingsInvalid(f"The file {path} is larger than {FILE_BYTES_MAX} bytes.")
    tree = _parsed(path, data)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsInvalid(f"The file {path} must hold names and values at its top.")
    refuse_unknown(tree, Settings, "", f"the file {path}")
    _note(tree, Settings, "", f"file {path}", origins)
    return tree


def _parsed(path: Path, data: bytes) -> object:
    try:
        if path.suffix == ".toml":
            return tomllib.loads(data.decode())
        if path.suffix in {".yaml", ".yml"}:
            return read_yaml(data)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        reason = " ".join(str(exc).split())
        raise SettingsInvalid(f"The file {path} is not well-formed: {reason}.") from exc
    except RecursionError as exc:
        raise SettingsInvalid(f"The file {path} is nested too deeply to be read.") from exc
    raise SettingsInvalid(f"The file {path} must end in .yaml, .yml or .toml.")


def environment_tree(environment: Mapping[str, str], origins: dict[str, str]) -> Tree:
    """Read every variable with our prefix; a double underscore stands for the dot.

    Raises:
        SettingsInvalid: one of them sets an unknown name.
    """
    tree: Tree = {}
    for variable, text in sorted(environment.items()):
        if _is_ours(variable.upper(), text):
            path = variable[len(PREFIX) :].lower().split("__")
            _put(tree, path, text, f"the environment ({variable})")
            origins.setdefault(".".join(path), f"environment {variable}")
    return tree


def merge(tree: Tree, stronger: Tree) -> None:
    """Put the values of the stronger tree into the other, group by group."""
    for name, value in stronger.items():
        if isinstance(value, dict):
            inner = tree.get(name)
            copy: Tree = inner if isinstance(inner, dict) else {}
            merge(copy, value)
            tree[name] = copy
        else:
            tree[name] = value


def _is_ours(variable: str, text: str) -> bool:
    if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
        return False
    if variable == f"{PREFIX}PORT":
        return SERVICE_LINK_VALUE.match(text) is None
    return SERVICE_LINK.fullmatch(variable) is None


def flag_tree(flags: Mapping[str, object], origins: dict[str, str]) -> Tree:
    """Take settings by dotted name.

    Raises:
        SettingsInvalid: one of them is unknown.
    """
    tree: Tree = {}
    for name, value in flags.items():
        _put(tree, name.split("."), value, "the command line")
        origins[name] = "flag"
    return tree


def _put(tree: Tree, path: list[str], value: object, source: str) -> None:
    """Set one value in a tree; text for a group or a list is decoded first."""
    kind: object = Settings
    for depth, name in enumerate(path):
        refuse_unknown_name(name, kind, ".".join(path[:depth]), source)
        kind = members(kind).get(name) or members(kind)[ANY_MODEL]
    if isinstance(value, str) and is_compound(kind):
        value = _decode(value, ".".join(path), source)
    refuse_inside(value, kind, ".".join(path), source)
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise SettingsInvalid(
                f"{'.'.join(path)} in {source} is in a group that is set to null: keep one."
            )
        tree = inner
    tree[path[-1]] = value


def _decode(text: str, name: str, source: str) -> object:
    if text.lstrip()[:1] not in {"{", "["}:
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise SettingsInvalid(f"{name} from {source} must be valid JSON.") from exc
    return value


def _note(
    tree: Mapping[object, object], kind: object, prefix: str, label: str, origins: dict[str, str]
) -> None:
    """Record where each value came from, unless a stronger source has set it."""
    known = members(kind)
    for name, value in tree.items():
        inner = known.get(str(name), known.get(ANY_MODEL))
        if isinstance(value, dict) and members(inner):
            _note(value, inner, f"{prefix}{name}.", label, origins)
        else:
            origins.setdefault(f"{prefix}{name}", label)
