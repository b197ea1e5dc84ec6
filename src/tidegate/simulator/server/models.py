"""The models of a server: the names of its own, and the adapters that are loaded beside."""

import msgspec

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.requests.bodies import read
from tidegate.simulator.requests.refusal import Refused, unknown_model

ADAPTERS_MAX = 4_096
_INVALID = "InvalidUserInput"


class Adapter(msgspec.Struct, frozen=True):
    """A LoRA adapter: `number` identifies it in events; `base` is the model under it."""

    name: str
    path: str
    number: int
    base: str


class AdapterFlag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adapter that a server begins with."""

    name: str
    path: str
    base_model_name: str | None = None


class _Load(msgspec.Struct, frozen=True):
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class _Unload(msgspec.Struct, frozen=True):
    lora_name: str


_decode_load = msgspec.json.Decoder(_Load).decode
_decode_unload = msgspec.json.Decoder(_Unload).decode


class Models:
    """Knows what can be asked for.

    Args:
        names: the server's own, all of one model.
        adapters: that it begins with.
        length_max: tokens of a request.
    """

    def __init__(
        self, names: tuple[str, ...], adapters: tuple[AdapterFlag, ...], length_max: int
    ) -> None:
        self._names = dict.fromkeys(names)
        self._first = names[0]
        self._length_max = length_max
        self._adapters: dict[str, Adapter] = {}
        self._numbers = 0
        for flag in adapters:
            self._add(flag.name, flag.path, flag.base_model_name or self._first)

    def name(self, asked: str | None) -> str:
        """Return the model that a request means.

        Raises:
            Refused: 404, it is not served.
        """
        if asked is None:
            return self._first
        if asked not in self._names and asked not in self._adapters:
            raise unknown_model(asked, list(self._names))
        return asked

    def lora(self, asked: str | None) -> str | None:
        """Return the adapter that a request means; None for the model itself."""
        return asked if asked in self._adapters else None

    def number(self, adapter: str) -> int | None:
        """Return the number of an adapter; None if it is gone."""
        found = self._adapters.get(adapter)
        return None if found is None else found.number

    def load(self, body: bytes) -> str:
        """Add an adapter, and say so in vLLM's words, or refuse it."""
        asked = read(_decode_load, body)
        if not asked.lora_name or not asked.lora_path:
            raise Refused("Both 'lora_name' and 'lora_path' must be provided.", kind=_INVALID)
        if asked.lora_name in self._names:
            raise Refused(
                f"The lora adapter '{asked.lora_name}' conflicts with a served base model.",
                kind=_INVALID,
            )
        is_there = asked.lora_name in self._adapters
        if is_there and not asked.load_inplace:
            raise Refused(
                f"The lora adapter '{asked.lora_name}' has already been loaded. If you want to "
                "load the adapter in place, set 'load_inplace' to True.",
                kind=_INVALID,
            )
        if not is_there and len(self._adapters) >= ADAPTERS_MAX:
            raise Refused(f"At most {ADAPTERS_MAX} adapters can be loaded.", kind=_INVALID)
        self._add(asked.lora_name, asked.lora_path, self._first)
        return f"Success: LoRA adapter '{asked.lora_name}' added successfully."

    def unload(self, body: bytes) -> str:
        """Take an adapter away, and say so in vLLM's words. What runs with it goes on."""
        name = read(_decode_unload, body).lora_name
        if not name:
            raise Refused(
                "'lora_name' needs to be provided to unload a LoRA adapter.", kind=_INVALID
            )
        if name not in self._adapters:
            raise Refused(
                f"The lora adapter '{name}' cannot be found.", status=404, kind="NotFoundError"
            )
        del self._adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def cards(self, created: int) -> list[dict[str, object]]:
        """Return what `/v1/models` lists: the server's own names, then the adapters."""
        own = [
            _card(name, created, root=self._first, length_max=self._length_max)
            for name in self._names
        ]
        return own + [
            _card(item.name, created, root=item.path, parent=item.base)
            for item in self._adapters.values()
        ]

    def _add(self, name: str, path: str, base: str) -> None:
        number = self.number(name)
        if number is None:
            self._numbers += 1
            number = self._numbers
        self._adapters[name] = Adapter(name, path, number, base)


def adapter_from(text: str) -> AdapterFlag:
    """Return an adapter from `name=path`, or from JSON with vLLM's members.

    Raises:
        SettingsInvalid: it is neither.
    """
    try:
        if text.lstrip().startswith("{"):
            found = msgspec.json.decode(text, type=AdapterFlag)
        else:
            name, _, path = text.partition("=")
            found = AdapterFlag(name, path)
    except msgspec.MsgspecError as error:
        raise SettingsInvalid(f"--lora-modules: {text} is not acceptable: {error}.") from error
    if not found.name or not found.path:
        raise SettingsInvalid(f"--lora-modules wants name=path, or JSON with both, not '{text}'.")
    return found


def _card(
    name: str, created: int, *, root: str, parent: str | None = None, length_max: int | None = None
) -> dict[str, object]:
    permission = {
        "id": "modelperm-0",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": length_max,
        "permission": [permission],
    }
