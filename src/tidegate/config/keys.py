"""API keys and their tenants, as an operator writes them. No message repeats a key."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidegate.api.settings import Settings as ApiSettings
from tidegate.domain.errors import SettingsInvalid

TENANT = "default"
COMMENT = "#"
KEY_FIELDS = 2


def tenants_of(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the tenant of each key, by the SHA-256 of the key.

    Args:
        entries: the place of each entry, for messages, and the entry: a key, or a key and its
            tenant with a blank between them.

    Raises:
        SettingsInvalid: an entry can't be a key, its tenant can't be used, or a key is given twice.
    """
    found: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, entry in entries:
        fields = entry.split()
        if not (entry.isascii() and entry.isprintable() and 1 <= len(fields) <= KEY_FIELDS):
            raise SettingsInvalid(
                f"{place} must hold a key of printable ASCII, alone or followed by a blank and "
                "its tenant."
            )
        digest = hashlib.sha256(fields[0].encode()).hexdigest()
        if digest in found:
            raise SettingsInvalid(
                f"{place} holds the same key as {places[digest]}: give each key once."
            )
        found[digest] = fields[1] if len(fields) == KEY_FIELDS else TENANT
        places[digest] = place
        _check_tenant(place, digest, found[digest])
    return found


def numbered(entries: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the entries of `server.keys` with the place of each."""
    for number, entry in enumerate(entries, 1):
        yield f"Entry {number} of server.keys", entry


def read_keys(path: Path) -> tuple[str, ...]:
    """Read a file with one entry on each line; blank lines and `#` comments are skipped.

    Raises:
        SettingsInvalid: the file can't be read, holds no key, or a line of it is wrong; the
            message gives the number of the line.
    """
    lines = enumerate(read_text(path).splitlines(), 1)
    stripped = ((number, line.strip()) for number, line in lines)
    entries = [
        (f"Line {number} of the key file {path}", line)
        for number, line in stripped
        if line and not line.startswith(COMMENT)
    ]
    if not entries:
        raise SettingsInvalid(f"The key file {path} holds no key: write one on each line.")
    tenants_of(entries)
    return tuple(entry for _, entry in entries)


def read_key(path: Path) -> str:
    """Read a file that holds one key and nothing else.

    Raises:
        SettingsInvalid: the file can't be read, or is empty.
    """
    key = read_text(path).strip()
    if not key:
        raise SettingsInvalid(f"The key file {path} is empty.")
    return key


def read_text(path: Path) -> str:
    """Read a small text file; a byte order mark at its start does not count.

    Raises:
        SettingsInvalid: it can't be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except OSError as exc:
        raise SettingsInvalid(f"The key file {path} can't be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise SettingsInvalid(f"The key file {path} can't be read: it is not UTF-8.") from exc


def _check_tenant(place: str, digest: str, tenant: str) -> None:
    try:
        ApiSettings(keys={digest: tenant})
    except SettingsInvalid as exc:
        # The message must not show the tenant: it may be a key in the wrong place.
        raise SettingsInvalid(
            f"{place} names a tenant that can't be used: use 1 to 64 of A-Z a-z 0-9 . _ -"
        ) from exc
