"""The model server that contestants call: a Go program that answers at once, on its own core."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from _go import program, toolchain
from _machine import cpu_seconds, starting_on, stop

STOP_SECONDS_MAX = 5.0
_SLOWER = Path(__file__).parent / "_drill_upstream.py"


@dataclass(frozen=True)
class FastUpstream:
    """A running server. `certificate` is what to trust where it speaks TLS."""

    url: str
    certificate: Path | None
    process: subprocess.Popen[bytes]

    def requests(self) -> int:
        """How many requests it has answered so far."""
        verify = True if self.certificate is None else _trusting(self.certificate)
        with httpx.Client(verify=verify) as client:
            counts = json.loads(client.get(f"{self.url}/counts").raise_for_status().content)
        return int(counts["requests"])

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)


def _trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


@contextmanager
def fast_upstream(
    folder: Path, core: int | None, *, tls: bool = False, delay_ms: float = 0.0
) -> Iterator[FastUpstream]:
    """Run the server until the block ends. Without Go it is a slower one of ours, without TLS."""
    certificate = folder / "upstream.pem" if tls else None
    with starting_on(core):
        process = subprocess.Popen(
            _command(certificate, delay_ms), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().decode().split()
        if len(said) != 2 or said[0] != "ready":
            raise SystemExit(f"The upstream did not start; it said {said}.")
        yield FastUpstream(said[1], certificate, process)
    finally:
        stop(process, STOP_SECONDS_MAX)


def _command(certificate: Path | None, delay_ms: float) -> list[str]:
    if toolchain() is None:
        assert certificate is None, "only the server in Go speaks TLS"
        return [sys.executable, str(_SLOWER), "--delay-ms", str(delay_ms)]
    command = [str(program("upstream")), "-delay", f"{delay_ms}ms"]
    return command if certificate is None else [*command, "-tls-cert", str(certificate)]
