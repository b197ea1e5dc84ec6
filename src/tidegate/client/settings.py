"""The address of a server, the key for it, and how to connect."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.domain.errors import SettingsInvalid

BASE_URL_DEFAULT = "http://127.0.0.1:8000/v1"
TIMEOUT_SECONDS_DEFAULT = 60.0
CONNECT_SECONDS_MAX = 10.0
_EXAMPLE = f"write it like {BASE_URL_DEFAULT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """One server, and how to reach it.

    `timeout_seconds` bounds a whole small answer, and each pause inside a long transfer. `ca_file`
    holds the authorities to trust instead of the system's. With `proxies` the usual environment
    variables for proxies are used.
    """

    base_url: str = BASE_URL_DEFAULT
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT
    ca_file: Path | None = None
    proxies: bool = False

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if self.api_key is not None and not _could_be_key(self.api_key):
            raise SettingsInvalid(
                "The API key must be one word of printable ASCII: fix OPENAI_API_KEY or the file "
                "that --api-key-file names."
            )
        if not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise SettingsInvalid("--timeout must be a number of seconds above zero.")

    @property
    def root(self) -> str:
        """The base URL as requests use it: without a slash at its end, with /v1 if it has no path.

        OpenAI's SDKs require the path; users forget it.
        """
        url = self.base_url.rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"


def _check_url(url: str) -> None:
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise SettingsInvalid(
            f"The base URL has a blank, a control character or a letter outside ASCII: {_EXAMPLE}."
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise SettingsInvalid(f"The base URL '{url}' is not a URL ({exc}): {_EXAMPLE}.") from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsInvalid(
            f"The base URL '{url}' must begin with http:// or https://: {_EXAMPLE}."
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsInvalid(
            "The base URL holds a user or password: set OPENAI_API_KEY or --api-key-file instead."
        )
    if parts.query or parts.fragment:
        raise SettingsInvalid(f"The base URL '{url}' may have no '?' or '#': {_EXAMPLE}.")


def _could_be_key(key: str) -> bool:
    return bool(key) and key.isascii() and key.isprintable() and " " not in key
