"""Every model server has cells that reach it as its own settings say."""

from contextlib import AsyncExitStack
from pathlib import Path

from tidegate.cell import COMMAND, PLAN_COMMAND, unpacked
from tidegate.config import load
from tidegate.processor.endpoints import Routes
from tidegate.processor.plan_door import PlanTask
from tidegate.upstreams.cell_process import ProcessCell
from tidegate.wiring.rooms import make_processor, open_ports, open_upstreams


async def test_a_model_server_has_cells_with_its_settings() -> None:
    flags = {
        "upstream.url": "http://127.0.0.1:9/prefix",
        "upstream.api_key": "a-key",
        "upstream.timeouts.total_seconds": 12.0,
        "processor.cells.memory_bytes_max": 2**31,
        "processor.cells.start_seconds": 7.0,
    }
    settings = load(environment={}, flags=flags).settings
    assert settings.upstream is not None
    async with AsyncExitStack() as stack:
        endpoints = open_upstreams(settings, stack)
        # Behind a gateway each model is an endpoint of its own.
        endpoint = Routes(default=endpoints["upstream"]).find("any-model")
        assert endpoint is not None
        cell = endpoint.open_cell()
        assert isinstance(cell, ProcessCell)
        assert cell.settings.command == COMMAND
        assert cell.settings.memory_bytes_max == 2**31
        assert cell.settings.start_seconds == 7.0
        assert unpacked(cell.settings.detail) == settings.upstream.http()
        assert cell.pid is None
        await cell.aclose()


async def test_a_batch_that_kills_is_planned_by_a_child_with_the_settings(tmp_path: Path) -> None:
    flags = {
        "data_dir": str(tmp_path),
        "upstream.url": "http://127.0.0.1:9",
        "processor.cells.memory_bytes_max": 2**31,
        "processor.cells.start_seconds": 7.0,
    }
    settings = load(environment={}, flags=flags).settings
    async with AsyncExitStack() as stack:
        ports = await open_ports(settings, stack)
        processor = make_processor(settings, ports, open_upstreams(settings, stack))
        task = PlanTask(planning=settings.processor.planning, endpoint="/v1/x", served=None)
        cell = processor.open_plan_cell(task)
        assert isinstance(cell, ProcessCell)
        assert cell.settings.command == PLAN_COMMAND
        assert cell.settings.memory_bytes_max == 2**31
        assert cell.settings.start_seconds == 7.0
        assert str(tmp_path).encode() in cell.settings.detail
        assert cell.settings.answer_bytes_max > settings.processor.planning.line_bytes_max
        assert cell.pid is None
        await cell.aclose()
