"""Blobs in a directory of this machine: the embedded default."""

from tidegate.blobs.filesystem.store import FilesystemBlobs

__all__ = ["FilesystemBlobs"]
