"""Turns what pydantic reports about settings into messages that name the setting and the fix."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tidegate.config.names import ANY_MODEL, members
from tidegate.config.settings import Settings
from tidegate.domain.errors import SettingsInvalid

GROUP = "must be a group of names and values"
# By the beginning of pydantic's error type; for any other type its own message is used.
MESSAGES = {
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


def settings_error(error: ValidationError) -> SettingsInvalid:
    """Return one error that names every wrong setting by its dotted name."""
    messages = [_message(item) for item in error.errors(include_url=False)]
    if len(messages) == 1 and "ctx" in error.errors()[0]:
        return SettingsInvalid(f"{messages[0]}.")
    return SettingsInvalid(f"Wrong settings: {'; '.join(messages)}.")


def _message(item: ErrorDetails) -> str:
    found = item.get("ctx", {}).get("error")
    if isinstance(found, SettingsInvalid):
        return _located(str(found).removesuffix("."), [str(part) for part in item["loc"]])
    return f"{'.'.join(str(part) for part in item['loc'])} {_reason(item['type'], item['msg'])}"


def _reason(kind: str, message: str) -> str:
    for start, reason in MESSAGES.items():
        if kind == start or kind.startswith(f"{start}_"):
            return reason
    return message.replace("Input should", "must", 1)


def _located(message: str, path: list[str]) -> str:
    """Return the message of a group's own check with the dotted name of the group in front."""
    group: object = Settings
    for name in path:
        known = members(group)
        group = known.get(name, known.get(ANY_MODEL))
    whole = ".".join(path)
    first = message.partition(" ")[0]
    if f"{whole}." in message:
        return message
    if first in members(group):
        return f"{whole}.{message}"
    if first.partition(".")[0] == path[-1]:
        return ".".join((*path[:-1], message))
    return f"{whole}: {message}"
