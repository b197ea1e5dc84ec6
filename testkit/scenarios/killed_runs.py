"""What a `tidegate run` that was killed has left in its ledger."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

from tidegate.application.content import Content
from tidegate.config import load
from tidegate.offline.input import TENANT
from tidegate.offline.state import DATA_FOLDER
from tidegate.wiring.backends import LEDGER_FILE
from tidegate.wiring.context import open_ports


async def committed(state: Path) -> frozenset[str]:
    """Return the custom_ids of all lines whose answers are in the ledger of a state folder."""
    data = state / DATA_FOLDER
    if not (data / LEDGER_FILE).is_file():
        return frozenset()
    settings = load(environment={}, flags={"data_dir": data}).settings
    names: list[str] = []
    async with AsyncExitStack() as stack:
        ports = await open_ports(settings, stack, check=False)
        page = await ports.store.list_batches(TENANT, after=None, limit=1)
        for batch in page.items:
            if batch.output_file_id is not None and batch.output_bytes:
                file, parts = await ports.store.get_parts(TENANT, batch.output_file_id)
                content = Content(file=file, parts=parts, blobs=ports.blobs)
                text = b"".join([piece async for piece in content.read(0, file.bytes)])
                names = [json.loads(line)["custom_id"] for line in text.splitlines()]
    assert len(names) == len(set(names)), "a line was committed twice"
    return frozenset(names)
