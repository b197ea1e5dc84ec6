"""`./run parity`: ask a real model server and the simulator the same, and report what differs."""

import argparse
import asyncio
import sys
from pathlib import Path

import httpx
import msgspec

from testkit.parity.asking import Recording, record
from testkit.parity.differences import differences, known_in, sorted_out
from testkit.servers.simulated import simulated
from tidegate.simulator.engine.settings import EngineSettings, Policy
from tidegate.simulator.kv_events.config import KvEventsConfig
from tidegate.simulator.settings import SimulatorSettings

PAGE = Path(__file__).parents[2] / "docs" / "simulator-parity.md"
LLAMA, VLLM = "llamacpp", "vllm"
USUAL_LENGTH = 4_096
BLOCK = 16
EVENTS = KvEventsConfig(
    enable_kv_cache_events=True, endpoint="tcp://127.0.0.1:*", replay_endpoint="tcp://127.0.0.1:*"
)


async def ours_like(theirs: Recording) -> Recording:
    """Ask a simulator of our own that serves the same model with the same room."""
    length = theirs.length_max or USUAL_LENGTH
    engine = EngineSettings(
        max_model_len=length, kv_blocks=max(1_024, -(-length // BLOCK)), policy=Policy.PRIORITY
    )
    settings = SimulatorSettings(
        models=(theirs.model,), engine=engine, sleep_mode=True, kv_events=EVENTS
    )
    async with simulated(settings) as server:
        return await record(server.url, "tidegate simulate", theirs.model)


async def kind_of(url: str) -> str:
    """Return which kind of server this is.

    Raises:
        httpx.HTTPError: it can't be reached.
    """
    async with httpx.AsyncClient(base_url=url) as client:
        reply = await client.get("/health")
        return LLAMA if "llama.cpp" in reply.headers.get("server", "") else VLLM


async def compare(options: argparse.Namespace) -> int:
    """Return how many differences nobody has accepted."""
    if options.replay is not None:
        theirs = msgspec.json.decode(options.replay.read_bytes(), type=Recording)
    else:
        url = options.against.rstrip("/").removesuffix("/v1")
        theirs = await record(url, options.kind or await kind_of(url), options.model)
    if options.record is not None:
        written = msgspec.json.format(msgspec.json.encode(theirs), indent=1)
        options.record.write_bytes(written + b"\n")
    found = differences(theirs, await ours_like(theirs))
    unknown, idle = sorted_out(theirs.server, found, known_in(PAGE))
    for difference in found:
        print("NEW  " if difference in unknown else "known", difference)
    for row in idle:
        print("gone ", row.probe, row.place, "can be taken from the list:", row.reason)
    answer = {
        "parity_failures": len(unknown),
        "probes": len(theirs.answers),
        "known": len(found) - len(unknown),
        "server": theirs.server,
    }
    print("RESULT", msgspec.json.encode(answer).decode())
    return len(unknown)


def main() -> int:
    """Run the command; 0 where nothing differs but what is known."""
    parser = argparse.ArgumentParser(prog="./run parity", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--against", metavar="URL", help="a running model server")
    source.add_argument("--replay", metavar="FILE", type=Path, help="what --record has written")
    parser.add_argument("--model", metavar="NAME", help="else the first that the server names")
    parser.add_argument("--kind", choices=[VLLM, LLAMA], help="else it is found out")
    parser.add_argument("--record", metavar="FILE", type=Path, help="keep the server's answers")
    options = parser.parse_args()
    try:
        return 1 if asyncio.run(compare(options)) else 0
    except (OSError, httpx.HTTPError, msgspec.MsgspecError) as error:
        print(f"There is nothing to compare with: {error!r}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
