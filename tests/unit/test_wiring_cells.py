"""Every model server has cells that reach it as its own settings say."""

from contextlib import AsyncExitStack

from tidegate.cell import COMMAND, unpacked
from tidegate.config import load
from tidegate.processor.endpoints import Routes
from tidegate.upstreams.cell_process import ProcessCell
from tidegate.wiring.rooms import open_upstreams


async def test_a_model_server_has_cells_with_its_settings() -> None:
    flags = {
        "gateway.url": "http://127.0.0.1:9/prefix",
        "gateway.api_key": "a-key",
        "gateway.timeouts.total_seconds": 12.0,
        "processor.cells.memory_bytes_max": 2**31,
        "processor.cells.start_seconds": 7.0,
    }
    settings = load(environment={}, flags=flags).settings
    assert settings.gateway is not None
    async with AsyncExitStack() as stack:
        endpoints = open_upstreams(settings, stack)
        # Behind a gateway each model is an endpoint of its own.
        endpoint = Routes(default=endpoints["gateway"]).find("any-model")
        assert endpoint is not None
        cell = endpoint.open_cell()
        assert isinstance(cell, ProcessCell)
        assert cell.settings.command == COMMAND
        assert cell.settings.memory_bytes_max == 2**31
        assert cell.settings.start_seconds == 7.0
        assert unpacked(cell.settings.detail) == settings.gateway.http()
        assert cell.pid is None
        await cell.aclose()
