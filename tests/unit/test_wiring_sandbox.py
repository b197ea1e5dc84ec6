"""Every model server has sandboxes that call it with its own settings."""

import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tidegate.config import load
from tidegate.endpoints.endpoint import Routes
from tidegate.planning.sandboxed import PlanningTask
from tidegate.sandbox.process import ProcessSandbox
from tidegate.wiring.context import open_ports, open_upstreams, processor_context
from tidegate.wiring.sandbox import COMMAND, PLAN_COMMAND, decode_http_settings


async def test_a_model_server_has_sandboxes_with_its_settings() -> None:
    flags = {
        "upstream.url": "http://127.0.0.1:9/prefix",
        "upstream.api_key": "a-key",
        "upstream.timeouts.total_seconds": 12.0,
        "processor.sandbox.memory_bytes_max": 2**31,
        "processor.sandbox.start_seconds": 7.0,
    }
    settings = load(environment={}, flags=flags).settings
    assert settings.upstream is not None
    async with AsyncExitStack() as stack:
        endpoints = open_upstreams(settings, stack)
        # Behind a gateway each model is an endpoint of its own.
        endpoint = Routes(default=endpoints["upstream"]).find("any-model")
        assert endpoint is not None
        cell = endpoint.open_sandbox()
        assert isinstance(cell, ProcessSandbox)
        assert cell.settings.command == COMMAND
        assert cell.settings.memory_bytes_max == 2**31
        assert cell.settings.start_seconds == 7.0
        assert decode_http_settings(cell.settings.detail) == settings.upstream.http()
        assert cell.pid is None
        await cell.aclose()


async def test_a_batch_that_kills_is_planned_by_a_child_with_the_settings(tmp_path: Path) -> None:
    flags = {
        "data_dir": str(tmp_path),
        "upstream.url": "http://127.0.0.1:9",
        "processor.sandbox.memory_bytes_max": 2**31,
        "processor.sandbox.start_seconds": 7.0,
    }
    settings = load(environment={}, flags=flags).settings
    async with AsyncExitStack() as stack:
        ports = await open_ports(settings, stack)
        context = processor_context(settings, ports, open_upstreams(settings, stack))
        task = PlanningTask(planning=settings.processor.planning, endpoint="/v1/x", served=None)
        assert context.open_plan_sandbox is not None
        cell = context.open_plan_sandbox(task)
        assert isinstance(cell, ProcessSandbox)
        assert cell.settings.command == PLAN_COMMAND
        assert cell.settings.memory_bytes_max == 2**31
        assert cell.settings.start_seconds == 7.0
        assert str(tmp_path).encode() in cell.settings.detail
        assert cell.settings.answer_bytes_max > settings.processor.planning.line_bytes_max
        assert cell.pid is None
        await cell.aclose()


def test_the_child_process_loads_neither_api_nor_stores() -> None:
    code = "import sys, tidegate.wiring.sandbox; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "tidegate.sandbox.child" in loaded
    for room in ("api", "stores.sqlite", "stores.memory", "collector", "config", "cli"):
        assert not [it for it in loaded if f"{it}.".startswith(f"tidegate.{room}.")], room
