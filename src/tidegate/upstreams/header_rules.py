"""Which headers may be sent to a model server, and which values are allowed.

No header of a user's request is forwarded. `CALL_HEADERS` lists the headers that a call
may have; the settings may add any header that does not affect the framing.
"""

import re
from collections.abc import Mapping
from typing import Final

from tidegate.domain.errors import SettingsInvalid

# Ids of the request and its trace, and headers for the scheduler of an inference gateway
# (objective, fairness, latency targets).
CALL_HEADERS: Final = frozenset(
    {
        "x-request-id",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "x-llm-d-inference-objective",
        "x-llm-d-inference-fairness-id",
        "x-gateway-inference-objective",
        "x-gateway-inference-fairness-id",
        "x-slo-ttft-ms",
        "x-slo-tpot-ms",
    }
)

# Headers that the settings may not set: they define message framing or manage the connection.
RESERVED_HEADERS = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
    }
)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def check_configured(headers: Mapping[str, str], api_key: str | None) -> None:
    """Check the headers and the key of the settings.

    Raises:
        SettingsInvalid: one of them can't be sent; the message does not repeat its value.
    """
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None:
            raise SettingsInvalid(f"{name!r} can't be a header name: use letters, digits and '-'.")
        if name.lower() in RESERVED_HEADERS:
            raise SettingsInvalid(f"The header '{name}' is set by Tidegate itself: remove it.")
        if not is_value(value):
            raise SettingsInvalid(
                f"The header '{name}' holds a line break, a control character or a letter outside "
                "Latin-1: remove it."
            )
    if len({name.lower() for name in headers}) < len(headers):
        raise SettingsInvalid("A header is given twice, in two spellings: keep one.")
    if api_key is not None:
        _check_key(api_key)
        if any(name.lower() == "authorization" for name in headers):
            raise SettingsInvalid("Both api_key and an 'authorization' header are set: keep one.")


def is_value(value: str) -> bool:
    """Return whether text can be a header's value: Latin-1 without control characters."""
    # The first two checks are faster and suffice for most values.
    return (value.isascii() and value.isprintable()) or _VALUE.fullmatch(value) is not None


def _check_key(api_key: str) -> None:
    if not api_key or not api_key.isascii() or not is_value(api_key) or api_key != api_key.strip():
        raise SettingsInvalid(
            "api_key is empty or holds a blank at an end, a line break or a character outside "
            "ASCII: check how it was copied."
        )
