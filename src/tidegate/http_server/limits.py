"""Bounds of HTTP connections: their number, and the time that a client may take."""

from dataclasses import dataclass

from tidegate.domain.errors import SettingsInvalid

KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTimeouts:
    """Times for the head of a request, for reading replies, between requests, and for stopping.

    `head_seconds` runs from the connection, or from the first byte of a later request, to the end
    of the request's headers. A connection is aborted if its client reads no byte of its reply for
    `reply_idle_seconds`, or for twice as long at most.
    """

    head_seconds: float = 10.0
    reply_idle_seconds: float = 60.0
    keep_alive_seconds: int = KEEP_ALIVE_SECONDS
    stop_grace_seconds: int = 10

    def __post_init__(self) -> None:
        if min(self.keep_alive_seconds, self.stop_grace_seconds) < 1:
            raise SettingsInvalid("Server timeouts must be at least 1 second.")
        for name in ("head_seconds", "reply_idle_seconds"):
            if getattr(self, name) <= 0:
                raise SettingsInvalid(f"server.timeouts.{name} must be above 0.")
