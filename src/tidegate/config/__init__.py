"""File, environment and flags become one frozen tree of settings; no other room reads them.

Precedence: flags, environment, file, defaults. Each room declares its own settings; this room only
puts them together, and refuses unknown names.
"""

from tidegate.config.checks import check_processing, check_serving
from tidegate.config.load import Loaded, hand_over, load, take_over
from tidegate.config.names import names
from tidegate.config.settings import (
    BlobsKind,
    Server,
    Settings,
    StoreKind,
    UpstreamSettings,
    is_loopback,
)

__all__ = [
    "BlobsKind",
    "Loaded",
    "Server",
    "Settings",
    "StoreKind",
    "UpstreamSettings",
    "check_processing",
    "check_serving",
    "hand_over",
    "is_loopback",
    "load",
    "names",
    "take_over",
]
