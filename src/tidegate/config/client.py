"""The address of the server for client commands: flags, then the variables of OpenAI's SDKs."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.client.settings import BASE_URL_DEFAULT, TIMEOUT_SECONDS_DEFAULT, ClientSettings
from tidegate.config.keys import read_key
from tidegate.config.settings import is_loopback

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
API_KEY_VARIABLE = "OPENAI_API_KEY"


def load_client_settings(
    *,
    base_url: str | None = None,
    api_key_file: Path | None = None,
    ca_file: Path | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT,
    environment: Mapping[str, str] | None = None,
) -> ClientSettings:
    """Return where the server is and the key for it.

    Args:
        base_url: as given by flag; else `OPENAI_BASE_URL`, else a Tidegate on this machine.
        api_key_file: a file that holds the key; else `OPENAI_API_KEY`, else no key is sent.
        ca_file: the authorities to trust instead of the system's.
        timeout_seconds: how long an answer may take.
        environment: instead of the environment of the process.

    Raises:
        SettingsInvalid: the URL or the key can't be used.
    """
    environment = os.environ if environment is None else environment
    url = base_url or environment.get(BASE_URL_VARIABLE, "").strip() or BASE_URL_DEFAULT
    key: str | None = environment.get(API_KEY_VARIABLE, "").strip() or None
    if api_key_file is not None:
        key = read_key(api_key_file)
    access = ClientSettings(
        base_url=url, api_key=key, timeout_seconds=timeout_seconds, ca_file=ca_file
    )
    # A proxy between two programs of one machine is never meant.
    return replace(access, proxies=not is_loopback(urlsplit(url).hostname or ""))
