"""The one place that reads the environment: sources in, one checked tree of settings out."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tidegate.config.errors import settings_error
from tidegate.config.keys import read_key, read_keys
from tidegate.config.settings import Settings, UpstreamSettings
from tidegate.config.sources import (
    FILE_VARIABLE,
    Tree,
    environment_tree,
    file_tree,
    flag_tree,
    merge,
)
from tidegate.domain.errors import SettingsInvalid

FILE_DEFAULT = Path("tidegate.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, and the origin of each one that is not a default, by its dotted name."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


def load(
    *,
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Read every source and return the checked result.

    Args:
        file: the configuration file; None means `TIDEGATE_CONFIG`, then ./tidegate.yaml.
        flags: settings by dotted name, as given on the command line.
        environment: instead of the environment of the process.

    Raises:
        SettingsInvalid: a source can't be read, a name is unknown, or a value is wrong.
    """
    environment = os.environ if environment is None else environment
    path = _find_file(file, environment)
    origins: dict[str, str] = {}
    trees = [
        flag_tree(flags or {}, origins),
        environment_tree(environment, origins),
        file_tree(path, origins) if path else {},
    ]
    settings = _resolve_keys(_validate(trees), environment, origins)
    settings = _resolve_server_keys(settings, origins)
    settings.check()
    return Loaded(settings=settings, origins=origins, file=path)


def settings_to_json(settings: Settings) -> str:
    """Return checked settings as one line of text for another process.

    It contains the keys of model servers and of the API: send it through a pipe only.
    """
    return _adapter().dump_json(settings).decode()


def settings_from_json(text: str) -> Settings:
    """Return the settings that another process handed over; no other source is read.

    Raises:
        SettingsInvalid: the text is not what `settings_to_json` returns.
    """
    try:
        tree: object = json.loads(text)
    except ValueError as exc:
        raise SettingsInvalid("The settings that were handed over are not JSON.") from exc
    if not isinstance(tree, dict):
        raise SettingsInvalid("The settings that were handed over are not a group of names.")
    settings = _validate([tree])
    settings.check()
    return settings


def _find_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is None and environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
    if file is not None:
        return file
    return FILE_DEFAULT if FILE_DEFAULT.is_file() else None


def _validate(trees: list[Tree]) -> Settings:
    tree: Tree = {}
    for stronger in reversed(trees):
        merge(tree, stronger)

    try:
        return _adapter().validate_python(tree)
    except ValidationError as exc:
        raise settings_error(exc) from exc


@functools.cache
def _adapter() -> TypeAdapter[Settings]:
    return TypeAdapter(Settings)


def _resolve_keys(
    settings: Settings, environment: Mapping[str, str], origins: dict[str, str]
) -> Settings:
    """Replace the names of files and variables of keys by the keys themselves."""

    def resolved(name: str, upstream: UpstreamSettings) -> UpstreamSettings:
        if upstream.api_key_file is not None:
            origins[f"{name}.api_key"] = f"file {upstream.api_key_file}"
            key = read_key(upstream.api_key_file)
        elif upstream.api_key_env is not None:
            origins[f"{name}.api_key"] = f"environment {upstream.api_key_env}"
            key = environment.get(upstream.api_key_env, "")
            if not key:
                raise SettingsInvalid(
                    f"{name}.api_key_env names {upstream.api_key_env}, which is not set."
                )
        else:
            return upstream
        return dataclasses.replace(upstream, api_key=key, api_key_file=None, api_key_env=None)

    one = settings.upstream and resolved("upstream", settings.upstream)
    many = {
        model: resolved(f"upstreams.{model}", upstream)
        for model, upstream in settings.upstreams.items()
    }
    return dataclasses.replace(settings, upstream=one, upstreams=many)


def _resolve_server_keys(settings: Settings, origins: dict[str, str]) -> Settings:
    server = settings.server
    if server.keys_file is None:
        return settings
    if server.keys:
        raise SettingsInvalid("Set server.keys or server.keys_file, not both.")
    keys = read_keys(server.keys_file)
    origins["server.keys"] = f"file {server.keys_file}"
    server = dataclasses.replace(server, keys=keys, keys_file=None)
    return dataclasses.replace(settings, server=server)
