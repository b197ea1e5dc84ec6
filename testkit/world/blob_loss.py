"""A fault of the storage itself: a blob of results vanishes (PROTOCOL 19)."""

import asyncio

from testkit.world.environment import FAULTS_SECONDS, Environment


class BlobLoss:
    """Takes at most one blob, at any time while faults happen.

    Only one that nobody appends to any more: a file that is taken from under its writer takes
    with it what is written later, which no ledger can know.
    """

    def __init__(self, ground: Environment) -> None:
        self._ground = ground
        self._chance = ground.fork()

    async def visit(self) -> None:
        """Take a blob, or find none worth taking."""
        ground, rng = self._ground, self._chance
        if rng.random() >= ground.odds.vanished:
            return
        await asyncio.sleep(rng.uniform(5.0, FAULTS_SECONDS))
        needed = ground.holdings.needed()
        names = [name for name in await ground.blobs.list_names("results/") if name in needed]
        names = [name for name in names if not ground.is_growing(name)]
        if names:
            name = rng.choice(names)
            ground.timeline.note("fault", f"takes {name}")
            ground.holdings.lost(name)
            await ground.blobs.vanish(name)
