"""The models of the configured servers: the answer to `/v1/models`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from tidegate.domain.errors import ReplyBroken
from tidegate.upstreams.base import Call, Reply, Upstream

CACHE_SECONDS = 5.0
MODELS_MAX = 10_000
OK = 200


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class ModelLister(Protocol):
    """Knows which models can be asked for."""

    async def list_models(self) -> Sequence[str]:
        """Return the names of the models that are served now, in a stable order.

        Raises:
            UpstreamFault: no model server answered.
        """


class Catalogue:
    """Lists the configured models, and those of the default server, which serves any model.

    An answer of that server is cached for `CACHE_SECONDS`, so that clients can't overload it.
    """

    def __init__(self, by_model: Mapping[str, Upstream], default: Upstream | None) -> None:
        self._named = sorted(by_model)
        self._default = default
        self._known: list[str] = []
        self._known_until = float("-inf")
        self._lock = asyncio.Lock()

    async def list_models(self) -> Sequence[str]:
        """Return the sorted names of the models that are served now.

        Raises:
            UpstreamFault: the server did not answer with its list.
        """
        if self._default is None:
            return self._named
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now >= self._known_until:
                found = _read(
                    await self._default.send(Call(path="/v1/models", body=b"", method="GET"))
                )
                self._known = sorted({*self._named, *found})
                self._known_until = now + CACHE_SECONDS
        return self._known


def _read(reply: Reply) -> list[str]:
    if reply.status != OK:
        raise ReplyBroken(f"The model server answered {reply.status} when asked for its models.")
    try:
        models = msgspec.json.decode(reply.body, type=_Models)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ReplyBroken("The model server's list of models can't be read.") from exc
    return [model.id for model in models.data[:MODELS_MAX]]
