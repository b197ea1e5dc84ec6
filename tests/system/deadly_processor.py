"""A real processor that a line with a certain word kills when it is sent.

A line with another word kills the process that reads it. `deadly_processor.py DATA BATCH` works on
the ledger and the blobs under DATA until BATCH has ended; `deadly_processor.py cell` is the child
process of one of its sandboxes, and `deadly_processor.py plan` the one in which a batch is planned.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from typing_extensions import override

from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.planning.sandboxed import PlanningTask
from tidegate.planning.settings import Planning
from tidegate.processor.context import ProcessorContext
from tidegate.processor.leases.renewer import ThreadLeaseRenewer
from tidegate.processor.service import Processor
from tidegate.processor.settings import Claims, Settings
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import SystemClock
from tidegate.runtime.ids import RandomIds
from tidegate.sandbox.child import OpenUpstream, isolate_process, redirect_stdout, serve
from tidegate.sandbox.process import ProcessSandbox, ProcessSandboxSettings
from tidegate.stores.base import Store
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.deployment import TENANT, ok
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.wire import jsonl
from tidegate.wire.lines import ChatBody, decode_chat_body
from tidegate.wiring.sandbox import open_planning, planning_sandbox

SETTINGS = Settings(
    claims=Claims(lease_seconds=1.0, poll_seconds=0.05), planning=Planning(shard_lines_max=20)
)


def decode_or_die(raw: bytes) -> ChatBody:
    """Read the body of a line, and kill this process where the marker stands in it."""
    if b"unreadable" in raw:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_chat_body(raw)


CELL = ProcessSandboxSettings(
    command=(sys.executable, "-P", __file__, "cell"),
    memory_bytes_max=2**30,
    answer_bytes_max=2**20,
    answer_seconds=30.0,
    start_seconds=30.0,
)


class Deadly(Upstream):
    """Answers at once, and kills its process where the marker stands in the body."""

    @override
    async def send(self, call: Call) -> Reply:
        await asyncio.sleep(0.002)
        if b"poison" in call.body:
            os.kill(os.getpid(), signal.SIGKILL)
        return ok()

    @override
    async def aclose(self) -> None:
        return


def open_plan_sandbox(task: PlanningTask, scratch: Path) -> ProcessSandbox:
    """Return a cell whose child is this very program."""
    cell = planning_sandbox(task, scratch=scratch, memory_bytes_max=2**30, start_seconds=30.0)
    return ProcessSandbox(replace(cell.settings, command=(sys.executable, "-P", __file__, "plan")))


def open_store(data: Path) -> Store:
    """Return the ledger of a data directory, closed as yet."""
    return SqliteStore(data / "ledger.db", SystemClock(), ThreadExecutor())


async def work(data: Path, batch_id: str) -> None:
    """Work until the batch has ended."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(data))
        blobs = FilesystemBlobs(data / "blobs")
        stack.push_async_callback(blobs.aclose)
        ids = RandomIds()
        routes = Routes(
            default=Endpoint("deadly", Deadly(), open_sandbox=lambda: ProcessSandbox(CELL))
        )
        processor = Processor(
            ProcessorContext(
                settings=SETTINGS,
                store=store,
                blobs=blobs,
                pubsub=MemoryPubSub(),
                routes=routes,
                clock=SystemClock(),
                ids=ids,
                rng=random.Random(),
                make_renewer=partial(ThreadLeaseRenewer, SETTINGS.claims, lambda: open_store(data)),
                open_spill_file=tempfile.TemporaryFile,
                owner=ids.make("processor_"),
                open_plan_sandbox=lambda task: open_plan_sandbox(task, data),
            )
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(processor.run(), name="processor")
            while not (await store.get_batch(TENANT, batch_id)).is_terminal:  # noqa: ASYNC110 - another process may end it
                await asyncio.sleep(0.05)
            processor.stop()


def be_child(open_upstream: OpenUpstream) -> None:
    """Answer the calls of a processor."""
    out = redirect_stdout()
    isolate_process()
    asyncio.run(serve(open_upstream, lambda _, __: None, out=out))


if __name__ == "__main__":
    vars(jsonl)["decode_chat_body"] = decode_or_die
    if sys.argv[1] == "cell":
        be_child(lambda _: Deadly())
    elif sys.argv[1] == "plan":
        be_child(open_planning)
    else:
        asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
