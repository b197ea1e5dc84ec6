"""The destination of KV events, in the members of vLLM's `--kv-events-config`."""

from typing import Literal

import msgspec

from tidegate.domain.errors import SettingsInvalid

BUFFER_STEPS_MAX = 1_000_000
OWN_ENDPOINT = "tcp://127.0.0.1:5557"


class KvEventsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's own members, with its defaults but for the endpoint.

    Attributes:
        enable_kv_cache_events: whether events are made at all.
        publisher: `zmq` or `null`; not given, it follows from the switch.
        endpoint: where batches are published: bound where it has a wildcard or is ipc or inproc,
            connected to elsewhere. Not given, `OWN_ENDPOINT` is bound: vLLM's `tcp://*:5557` would
            show every machine around what prompts say.
        replay_endpoint: where old batches can be asked for; always bound.
        buffer_steps: how many batches can be asked for.
        hwm: how many batches wait for one slow subscriber; it misses what is more.
        max_queue_size: as in vLLM, where batches wait for a thread; here none wait.
        topic: the first frame of each batch.
    """

    enable_kv_cache_events: bool = False
    publisher: Literal["null", "zmq"] | None = None
    endpoint: str | None = None
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    hwm: int = 100_000
    max_queue_size: int = 100_000
    topic: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.buffer_steps <= BUFFER_STEPS_MAX:
            raise ValueError(f"buffer_steps is from 1 to {BUFFER_STEPS_MAX}")
        if self.hwm < 1 or self.max_queue_size < 1:
            raise ValueError("hwm and max_queue_size are 1 or more")

    @property
    def is_on(self) -> bool:
        """Return whether events are published."""
        return self.enable_kv_cache_events and self.publisher != "null"

    @property
    def address(self) -> str:
        """Return where batches are published."""
        return self.endpoint or OWN_ENDPOINT

    @property
    def binds(self) -> bool:
        """Return whether the publisher binds, or connects to a subscriber that does."""
        return (
            not self.endpoint
            or "*" in self.endpoint
            or "::" in self.endpoint
            or self.endpoint.startswith(("ipc://", "inproc://"))
        )


def kv_events_from(text: str) -> KvEventsConfig:
    """Return what a flag says.

    Raises:
        SettingsInvalid: it is not JSON, or not acceptable.
    """
    try:
        return msgspec.json.decode(text, type=KvEventsConfig)
    except msgspec.MsgspecError as error:
        raise SettingsInvalid(f"--kv-events-config is not acceptable: {error}.") from error
