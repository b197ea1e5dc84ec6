"""Take a file away."""

from tidegate.desk.desk import Desk
from tidegate.desk.read import read_file


async def delete_file(desk: Desk, tenant: str, file_id: str) -> str:
    """Hide a file at once, and return its id.

    Raises:
        NotFound: there is none that this tenant may see.
        Conflict: a batch is still writing it.
    """
    file = await read_file(desk, tenant, file_id)
    await desk.store.delete_file(tenant, file.id)
    return file.id
