"""A ledger in one SQLite file: the embedded default. Several processes may share the file."""

from tidegate.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
