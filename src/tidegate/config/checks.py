"""Checks of this machine before a process starts; they leave nothing behind."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tidegate.config.kinds import MEMORY
from tidegate.config.settings import Settings, UpstreamSettings
from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.server import bind
from tidegate.upstreams.transport.tls import make_context


def check_serving(settings: Settings) -> None:
    """Refuse settings that `serve` can't work with. Ports are not tried: they may be in use.

    Raises:
        SettingsInvalid: there is no model server, a file of TLS can't be used, the host is not of
            this machine, the data directory can be neither used nor made, processors of their own
            could not see what is kept in memory, or a ledger in memory has its blobs on disk.
    """
    _check_kinds(settings)
    if settings.processors != 1:
        settings.require_sharing()
    _check_machine(settings)


def check_processing(settings: Settings) -> None:
    """Refuse settings that `processor` can't work with.

    Raises:
        SettingsInvalid: what `check_serving` refuses, or a ledger or blobs in memory.
    """
    settings.require_sharing()
    _check_machine(settings)


def _check_kinds(settings: Settings) -> None:
    # A new ledger knows no stored blob, so its collector would remove them all, including those
    # of another server with a ledger in the same directory.
    if settings.store.kind == MEMORY != settings.blobs.kind:
        raise SettingsInvalid(
            "A ledger in memory loses track of stored blobs when it ends: set blobs.kind to "
            "memory as well, or store.kind to sqlite."
        )


def _check_machine(settings: Settings) -> None:
    settings.require_upstream()
    for name, upstream in _upstreams(settings):
        try:
            make_context(upstream.tls)
        except SettingsInvalid as exc:
            raise SettingsInvalid(f"{name}.{exc}") from exc
    _check_host(settings.server.host)
    _check_data_dir(settings.data_dir)


def _upstreams(settings: Settings) -> Iterator[tuple[str, UpstreamSettings]]:
    if settings.upstream is not None:
        yield "upstream", settings.upstream
    for model, upstream in settings.upstreams.items():
        yield f"upstreams.{model}", upstream


def _check_host(host: str) -> None:
    try:
        bind(host, 0, "server.host").close()
    except SettingsInvalid as exc:
        raise SettingsInvalid(
            f"server.host '{host}' is not an address of this machine: set server.host to one that "
            "is, such as 127.0.0.1, or 0.0.0.0 for all of them."
        ) from exc


def _check_data_dir(data_dir: Path) -> None:
    place = data_dir.absolute()
    while not os.path.lexists(place):
        place = place.parent
    wrong = None
    if not place.is_dir():
        wrong = errno.ENOTDIR
    elif not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        wrong = errno.EACCES
    if wrong is not None:
        raise SettingsInvalid(
            f"The data directory {data_dir} can't be used ({os.strerror(wrong)}): fix {place}, or "
            "set data_dir."
        )
