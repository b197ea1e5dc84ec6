"""File, environment and flags become one frozen tree of settings; no other room reads them.

Precedence: flags, environment, file, defaults. Each room declares its own settings; this room only
puts them together, and refuses unknown names.
"""

from tidegate.config.checks import check_processing, check_serving
from tidegate.config.load import Loaded, load, settings_from_json, settings_to_json
from tidegate.config.names import names
from tidegate.config.settings import Server, Settings, UpstreamSettings, is_loopback

__all__ = [
    "Loaded",
    "Server",
    "Settings",
    "UpstreamSettings",
    "check_processing",
    "check_serving",
    "is_loopback",
    "load",
    "names",
    "settings_from_json",
    "settings_to_json",
]
