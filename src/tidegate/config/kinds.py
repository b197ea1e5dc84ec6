"""The kinds of back-ends that settings may name: ours, and those of other installed packages.

A package offers a back-end by an entry point of its family's group; the name is the kind.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from tidegate.domain.errors import SettingsInvalid

MEMORY, SQLITE, FILESYSTEM = "memory", "sqlite", "filesystem"
BUILT_IN: Mapping[str, frozenset[str]] = {
    "store": frozenset({MEMORY, SQLITE}),
    "blobs": frozenset({MEMORY, FILESYSTEM}),
    "pubsub": frozenset({MEMORY}),
}
GROUPS = {"store": "tidegate.stores", "blobs": "tidegate.blobs", "pubsub": "tidegate.pubsub"}


def find_entry_point(family: str, kind: str) -> EntryPoint | None:
    """Return what provides a kind: None if it is one of ours.

    Raises:
        SettingsInvalid: nothing provides it; the message lists the known kinds.
    """
    if kind in BUILT_IN[family]:
        return None
    offered = entry_points(group=GROUPS[family])
    found = next(iter(offered.select(name=kind)), None)
    if found is None:
        known = ", ".join(sorted(BUILT_IN[family] | offered.names))
        raise SettingsInvalid(
            f"{family}.kind '{kind}' is not installed: use one of {known}, or install the package "
            "that provides it."
        )
    return found
