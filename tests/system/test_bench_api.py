"""The benchmark of the API in its short form, and its client."""

import importlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
WAIT_SECONDS = 110.0


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "api.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.slow
def test_the_short_form_looks_at_everything_idle_and_busy() -> None:
    done = bench("--quick")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    result = json.loads(last.removeprefix("RESULT "))
    kinds = {"retrieve", "list", "file"}
    assert set(result["cpu_us_per_request"]) == set(result["requests_per_second_per_core"]) == kinds
    for kind in kinds:
        by_core = result["requests_per_second_per_core"][kind]
        assert by_core * result["cpu_us_per_request"][kind] == pytest.approx(1e6, rel=0.05)
    assert result["client_cpu_us_per_request"] > 0
    busy = {
        f"{phase}_{pace}" for phase in ("planned", "dispatched") for pace in ("at_once", "paced")
    }
    names = {f"{kind}, idle" for kind in kinds} | {f"retrieve, {load}" for load in busy}
    assert set(result["loads"]) == names
    for load in result["loads"].values():
        assert load["p50_ms"] <= load["p99_ms"] <= load["p99_ms_max"] <= load["ms_max"]
    # How many looks a short planning leaves time for is the machine's affair, but dispatch is long.
    assert result["loads"]["retrieve, dispatched_at_once"]["requests"] > 10
    assert result["p99_ms_retrieve_dispatching"] > 0


def test_no_rounds_are_refused() -> None:
    done = bench("--rounds", "0")
    assert done.returncode == 2
    assert "--rounds must be at least 1" in done.stderr


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("_api_client")


@contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """Answer one connection with these in turn, each in two halves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for reply in replies:
                    if not connection.recv(65_536):
                        return
                    connection.sendall(reply[: len(reply) // 2])
                    connection.sendall(reply[len(reply) // 2 :])

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/x?y=z"
        finally:
            server.join()


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def test_the_client_asks_until_it_hears_the_end_which_does_not_count(client: ModuleType) -> None:
    with answering(ok(b"go on"), ok(b"go on"), ok(b""), ok(b"end")) as url:
        heard = client.ask_again_and_again(
            url,
            connections=1,
            pause_seconds=0.0,
            seconds_max=WAIT_SECONDS,
            go_on=lambda body: body != b"end",
        )
    assert heard.requests == 3
    assert all(0 < latency < 1_000 * heard.seconds for latency in heard.latencies_ms)


def test_the_client_pauses_and_ends_in_time(client: ModuleType) -> None:
    with answering(ok(b"1"), ok(b"2")) as url:
        heard = client.ask_again_and_again(
            url, connections=1, pause_seconds=WAIT_SECONDS, seconds_max=0.05
        )
    assert heard.requests <= 1
    assert heard.seconds >= 0.05


@pytest.mark.parametrize("reply", [b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", b""])
def test_the_client_takes_no_other_answer(client: ModuleType, reply: bytes) -> None:
    with answering(reply) as url, pytest.raises(SystemExit, match="The server"):
        client.ask_again_and_again(url, connections=1, pause_seconds=0.0, seconds_max=WAIT_SECONDS)


def test_percentiles_are_latencies_that_were_seen(client: ModuleType) -> None:
    heard = client.Heard([float(n) for n in range(100, 0, -1)], 1.0, 0.0)
    assert [heard.percentile(share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert client.Heard([], 1.0, 0.0).percentile(0.99) == 0.0
