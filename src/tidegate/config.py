"""File, environment and flags become one frozen tree of settings; nobody else reads them.

Flags win over the environment, the environment over the file, the file over the defaults. Each room
declares its own settings; this file only puts them together, and refuses names that nobody knows.
"""

import dataclasses
import difflib
import ipaddress
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource
from typing_extensions import override

from tidegate.domain.errors import SettingsInvalid
from tidegate.processor.endpoints import PauseSettings
from tidegate.processor.settings import Settings as ProcessorSettings
from tidegate.runtime.limiter import AimdSettings

PREFIX = "TIDEGATE_"
FILE_VARIABLE = "TIDEGATE_CONFIG"
FILE_DEFAULT = Path("tidegate.yaml")
FILE_BYTES_MAX = 2**20
LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})

Tree = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One OpenAI-compatible model server, or a gateway in front of many.

    Its key is given once: as text, as a file that holds it, or as the name of a variable.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    api_key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: AimdSettings = field(default_factory=AimdSettings)
    pauses: PauseSettings = field(default_factory=PauseSettings)

    def __post_init__(self) -> None:
        given = [self.api_key, self.api_key_file, self.api_key_env]
        if sum(item is not None for item in given) > 1:
            raise SettingsInvalid(
                "A gateway takes one of api_key, api_key_file and api_key_env, not several."
            )


class StoreKind(StrEnum):
    """Where the ledger is kept."""

    SQLITE = "sqlite"  # One file in the data directory; survives power loss.
    MEMORY = "memory"  # Gone when the process ends: for trying things out.


class BlobsKind(StrEnum):
    """Where the bytes of files are kept."""

    FILES = "files"  # Under the data directory; survives power loss.
    MEMORY = "memory"  # Gone when the process ends: for trying things out.


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Which ledger is used."""

    kind: StoreKind = StoreKind.SQLITE


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobsSettings:
    """Which blob store is used."""

    kind: BlobsKind = BlobsKind.FILES


class Settings(BaseSettings):  # type: ignore[explicit-any]  # pydantic's metaclass uses Any
    """Everything that can be set."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path("tidegate-data")
    gateway: Gateway | None = None
    model_gateways: Mapping[str, Gateway] = {}
    store: StoreSettings = StoreSettings()
    blobs: BlobsSettings = BlobsSettings()
    processor: ProcessorSettings = ProcessorSettings()

    def require_upstream(self) -> None:
        """Say plainly what is missing when there is no model server to send work to.

        Raises:
            SettingsInvalid: there is none.
        """
        if self.gateway is None and not self.model_gateways:
            raise SettingsInvalid(
                "No model server is configured: set gateway.url (it serves every model) or "
                "model_gateways (one for each model), for example --gateway http://127.0.0.1:8001."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, and where each one that is not a default came from, by its dotted name."""

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
        file: the configuration file; None looks at `TIDEGATE_CONFIG`, then for ./tidegate.yaml.
        flags: settings by dotted name, as given on the command line.
        environment: instead of the environment of the process.

    Raises:
        SettingsInvalid: a source can't be read, a name is unknown, or a value is wrong.
    """
    environment = os.environ if environment is None else environment
    path = _find_file(file, environment)
    origins: dict[str, str] = {}
    trees = [
        _flag_tree(flags or {}, origins),
        _environment_tree(environment, origins),
        _file_tree(path, origins) if path else {},
    ]
    settings = _resolve_keys(_validate(trees), environment, origins)
    _check(settings)
    return Loaded(settings=settings, origins=origins, file=path)


def names(kind: object = Settings, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the type of every setting; `<model>` stands for any key."""
    for name, inner in _members(kind).items():
        if _members(inner):
            yield from names(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def _find_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is None and environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
    if file is not None:
        return file
    return FILE_DEFAULT if FILE_DEFAULT.is_file() else None


def _file_tree(path: Path, origins: dict[str, str]) -> Tree:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SettingsInvalid(f"The file {path} can't be read: {exc.strerror}.") from exc
    if len(data) > FILE_BYTES_MAX:
        raise SettingsInvalid(f"The file {path} is larger than {FILE_BYTES_MAX} bytes.")
    try:
        if path.suffix == ".toml":
            tree: object = tomllib.loads(data.decode())
        elif path.suffix in {".yaml", ".yml"}:
            tree = yaml.safe_load(data)
        else:
            raise SettingsInvalid(f"The file {path} must end in .yaml, .yml or .toml.")
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        reason = " ".join(str(exc).split())
        raise SettingsInvalid(f"The file {path} is not well-formed: {reason}.") from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsInvalid(f"The file {path} must hold names and values at its top.")
    _refuse_unknown(tree, Settings, "", f"the file {path}")
    _note(tree, Settings, "", f"file {path}", origins)
    return tree


def _environment_tree(environment: Mapping[str, str], origins: dict[str, str]) -> Tree:
    tree: Tree = {}
    for variable, text in sorted(environment.items()):
        if variable.upper().startswith(PREFIX) and variable.upper() != FILE_VARIABLE:
            path = variable[len(PREFIX) :].lower().split("__")
            _put(tree, path, text, f"the environment ({variable})")
            origins.setdefault(".".join(path), f"environment {variable}")
    return tree


def _flag_tree(flags: Mapping[str, object], origins: dict[str, str]) -> Tree:
    tree: Tree = {}
    for name, value in flags.items():
        _put(tree, name.split("."), value, "the command line")
        origins[name] = "flag"
    return tree


def _put(tree: Tree, path: list[str], value: object, source: str) -> None:
    """Set one value deep in a tree, turning text into what its setting wants to see."""
    kind: object = Settings
    for depth, name in enumerate(path):
        _refuse_unknown({name: None}, kind, ".".join(path[:depth]), source)
        kind = _members(kind).get(name) or _members(kind)["<model>"]
    if isinstance(value, str) and _is_compound(kind):
        value = _decode(value, ".".join(path), source)
        if isinstance(value, dict):
            _refuse_unknown(value, kind, ".".join(path), source)
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise SettingsInvalid(f"{'.'.join(path)} is given as JSON and alone in {source}.")
        tree = inner
    tree[path[-1]] = value


def _decode(text: str, name: str, source: str) -> object:
    if text.lstrip()[:1] not in {"{", "["}:
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        value: object = json.loads(text)
    except ValueError as exc:
        raise SettingsInvalid(f"{name} from {source} must be valid JSON.") from exc
    return value


def _refuse_unknown(tree: Mapping[object, object], kind: object, prefix: str, source: str) -> None:
    known = _members(kind)
    for name, value in tree.items():
        inner = known.get(str(name), known.get("<model>"))
        dotted = f"{prefix}.{name}" if prefix else str(name)
        if inner is None:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f": did you mean '{near[0]}'?" if near else f"; known here: {', '.join(known)}."
            raise SettingsInvalid(f"unknown setting '{dotted}' in {source}{hint}")
        if isinstance(value, dict) and _members(inner):
            _refuse_unknown(value, inner, dotted, source)


def _note(
    tree: Mapping[object, object], kind: object, prefix: str, label: str, origins: dict[str, str]
) -> None:
    """Record where each value came from, unless a stronger source has set it."""
    known = _members(kind)
    for name, value in tree.items():
        inner = known.get(str(name), known.get("<model>"))
        if isinstance(value, dict) and _members(inner):
            _note(value, inner, f"{prefix}{name}.", label, origins)
        else:
            origins.setdefault(f"{prefix}{name}", label)


def _members(kind: object) -> dict[str, object]:
    """Return the settings inside a type: fields by name, or `<model>` where any key may stand."""
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        inner = [_members(item) for item in typing.get_args(kind)]
        return next((found for found in inner if found), {})
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = typing.get_args(kind)[1]
        return {"<model>": value} if dataclasses.is_dataclass(value) else {}
    if isinstance(kind, type) and issubclass(kind, BaseSettings):
        hints = typing.get_type_hints(kind)
        return {name: hints[name] for name in kind.model_fields}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {item.name: hints[item.name] for item in dataclasses.fields(kind)}
    return {}


def _is_compound(kind: object) -> bool:
    """Say whether text for this setting must be decoded: a group, a mapping or a list."""
    if _members(kind):
        return True
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return any(_is_compound(item) for item in typing.get_args(kind))
    return isinstance(origin, type) and issubclass(origin, (Mapping, tuple, list, frozenset))


def _validate(trees: list[Tree]) -> Settings:
    class FromSources(Settings):  # type: ignore[explicit-any]  # as above
        @classmethod
        @override
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, tree) for tree in trees)

    try:
        return FromSources()
    except ValidationError as exc:
        found = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in exc.errors()
        ]
        raise SettingsInvalid("Wrong settings: " + "; ".join(found) + ".") from exc


def _resolve_keys(
    settings: Settings, environment: Mapping[str, str], origins: dict[str, str]
) -> Settings:
    """Put the keys that lie in files or variables into their place."""

    def resolved(name: str, gateway: Gateway) -> Gateway:
        if gateway.api_key_file is not None:
            origins[f"{name}.api_key"] = f"file {gateway.api_key_file}"
            key = _read_key(gateway.api_key_file)
        elif gateway.api_key_env is not None:
            origins[f"{name}.api_key"] = f"environment {gateway.api_key_env}"
            key = environment.get(gateway.api_key_env, "")
            if not key:
                raise SettingsInvalid(
                    f"{name}.api_key_env names {gateway.api_key_env}, which is not set."
                )
        else:
            return gateway
        return dataclasses.replace(gateway, api_key=key, api_key_file=None, api_key_env=None)

    one = settings.gateway and resolved("gateway", settings.gateway)
    many = {
        model: resolved(f"model_gateways.{model}", gateway)
        for model, gateway in settings.model_gateways.items()
    }
    return settings.model_copy(update={"gateway": one, "model_gateways": many})


def _read_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid(f"The key file {path} can't be read: {exc}.") from exc
    if not key:
        raise SettingsInvalid(f"The key file {path} is empty.")
    return key


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach the address."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(settings: Settings) -> None:
    if settings.gateway is not None and settings.model_gateways:
        raise SettingsInvalid(
            "Both gateway and model_gateways are set: keep gateway to serve every model by one "
            "URL, or model_gateways to give each model its own."
        )
