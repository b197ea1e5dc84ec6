"""What must be true in the end: every line has its result, every acknowledged thing exists."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from testkit.world.account import ResultLine
from testkit.world.broken import Broken
from testkit.world.environment import TENANTS, Environment
from testkit.world.machines import DOWNLOAD_SECONDS
from testkit.world.users import Order
from tidegate.collector.duty import CollectorContext
from tidegate.collector.service import Collector
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import NotFound
from tidegate.domain.file import File, Purpose

PAGE = 100
LONG_SECONDS = 2_000.0


class _NothingLeft:
    """An ender that nobody needs: every batch has ended."""

    async def end_all(self, is_stopping: Callable[[], bool]) -> None:
        """Complain.

        Raises:
            Broken: a batch is left to be ended.
        """
        raise Broken(f"a batch is left to be ended (the collector is stopping: {is_stopping()})")


class Checks:
    """Looks at the ledger and blobs themselves, where nothing goes wrong."""

    def __init__(self, ground: Environment, orders: Sequence[Order]) -> None:
        self._ground = ground
        self._store = ground.raw_store
        self._orders = {order.name: order for order in orders}

    async def batches(self) -> list[Batch]:
        """Return every batch there is, acknowledged or not."""
        found: list[Batch] = []
        for tenant in TENANTS:
            page = await self._store.list_batches(tenant, after=None, limit=PAGE)
            assert not page.has_more, "a world has few batches"
            found += page.items
        return found

    async def wait_for_ends(self) -> None:
        """Return when every batch has ended, also those whose users got no answer."""
        for batch in await self.batches():
            while not batch.is_terminal:
                await asyncio.sleep(1.0)
                batch = await self._store.get_batch(batch.tenant, batch.id)  # noqa: PLW2901 - the same batch, later

    async def check(self) -> None:
        """Hold the world to everything that it acknowledged.

        Raises:
            Broken: a promise was not kept.
        """
        batches = await self.batches()
        for batch in batches:
            order = self._orders[(batch.metadata or {})["order"]]
            await self._check_batch(batch, order)
        for order in self._orders.values():
            mine = [b for b in batches if (b.metadata or {})["order"] == order.name]
            await self._check_order(order, mine)
        for tenant in TENANTS:
            await self._check_uploads(tenant)

    async def collect(self) -> None:
        """Let time pass and a collector work twice: then nothing is left that nobody needs.

        Raises:
            Broken: a blob is left, or an uncalled-for one is missing.
        """
        ground = self._ground
        collector = Collector(
            Settings(download_seconds_max=DOWNLOAD_SECONDS, upload_seconds_max=DOWNLOAD_SECONDS),
            CollectorContext(
                store=ground.store,
                blobs=ground.blobs,
                clock=ground.clock,
                ids=ground.ids,
                orphan_finalizer=_NothingLeft(),
            ),
        )
        for _ in range(2):
            await asyncio.sleep(LONG_SECONDS)
            report = await collector.collect()
            lost = ground.holdings.vanished & ground.holdings.needed()
            if {damage.blob for damage in report.damages} != lost or report.unknown_blobs:
                raise Broken(f"the collector finds damage: {report}")
        needed = ground.holdings.needed()
        left = set(await ground.blobs.list_names("")) - needed
        if left:
            raise Broken(f"nobody needs these blobs, and they are still there: {sorted(left)}")

    async def _check_order(self, order: Order, mine: Sequence[Batch]) -> None:
        if order.batch_id not in {batch.id for batch in mine}:
            raise Broken(f"{order.batch_id} was acknowledged and does not exist")
        if order.keyed and len(mine) != 1:
            raise Broken(f"one key made {len(mine)} batches: {[batch.id for batch in mine]}")
        assert order.file_id is not None, order
        if order.file_id not in order.deleted:
            await self._read(order.principal.tenant, order.file_id, order.data)
        for file_id, seen in order.seen.items():
            repaired = self._ground.holdings.was_repaired(file_id)
            if not repaired and not self._ground.holdings.content(file_id).startswith(seen):
                raise Broken(f"a user read bytes of {file_id} that are not there now")

    async def _check_uploads(self, tenant: str) -> None:
        """Every file is whole, whether its user got an answer or not."""
        files = await self._files(tenant)
        for file in files:
            order = self._orders.get(file.filename)
            if order is not None and order.principal.tenant == tenant:
                await self._read(tenant, file.id, order.data)
            elif file.batch_id is None:
                raise Broken(f"a file that nobody sent: {file}")
        uploads = Counter(file.filename for file in files if file.batch_id is None)
        for name, count in uploads.items():
            if count > self._orders[name].attempts:
                raise Broken(f"{name} exists {count} times: {self._orders[name].attempts} tries")

    async def _files(self, tenant: str) -> Sequence[File]:
        page = await self._store.list_files(
            tenant, after=None, limit=PAGE * 10, ascending=True, purpose=None
        )
        assert not page.has_more, "a world has few files"
        return page.items

    async def _check_batch(self, batch: Batch, order: Order) -> None:
        self._ground.report.statuses[batch.status.value] += 1
        if not batch.is_terminal:
            raise Broken(f"a batch has not ended: {batch}")
        if batch.status is Status.CANCELLED and not order.asked_to_cancel:
            raise Broken("a batch was cancelled that nobody cancelled")
        if not batch.is_planned:
            self._check_unplanned(batch, order)
            return
        results = self._lines(batch.output_file_id)
        errors = self._lines(batch.error_file_id)
        names = Counter(line.custom_id for line in [*results, *errors])
        if names != Counter(order.names):
            raise Broken(f"lines lost or doubled: {Counter(order.names) - names}, {names}")
        self._check_status(batch, errors)
        self._check_poison(order, results, errors)
        for file_id, size in (
            (batch.output_file_id, batch.output_bytes),
            (batch.error_file_id, batch.error_bytes),
        ):
            if file_id is not None and size and file_id not in order.deleted:
                content = self._ground.holdings.content(file_id)
                file = await self._read(order.principal.tenant, file_id, content)
                if file.purpose is not Purpose.BATCH_OUTPUT or file.growing:
                    raise Broken(f"not the final results of a batch: {file}")

    def _check_unplanned(self, batch: Batch, order: Order) -> None:
        if batch.counts.total or batch.output_bytes or batch.error_bytes:
            raise Broken(f"an unplanned batch has lines or files: {batch}")
        if batch.status is Status.FAILED and order.file_id not in order.deleted:
            raise Broken(f"a batch failed whose input is there: {batch}")

    def _check_status(self, batch: Batch, errors: Sequence[ResultLine]) -> None:
        """Hold the reason that each line gives to the way in which the batch ended."""
        codes = Counter(line.error.code for line in errors if line.error is not None)
        if codes["batch_cancelled"] and batch.status is not Status.CANCELLED:
            raise Broken(f"lines of a batch that is {batch.status} say that it was cancelled")
        if batch.status is not Status.CANCELLED:
            earned = Status.EXPIRED if codes["batch_expired"] else Status.COMPLETED
            if batch.status is not earned:
                raise Broken(f"{batch.id} is {batch.status}, its lines say {earned}")

    def _check_poison(
        self, order: Order, results: Sequence[ResultLine], errors: Sequence[ResultLine]
    ) -> None:
        """Exactly the poisoned lines are blamed, unless something else ended them first."""
        codes = {line.custom_id: line.error.code for line in errors if line.error is not None}
        blamed = {name for name, code in codes.items() if code == "processor_crashed"}
        if not blamed <= order.poison:
            raise Broken(f"good lines were blamed: {sorted(blamed - order.poison)}")
        answered = [*results, *(line for line in errors if line.error is None)]
        if survived := order.poison & {line.custom_id for line in answered}:
            raise Broken(f"these lines kill every process, and have results: {survived}")

    def _lines(self, file_id: str | None) -> list[ResultLine]:
        content = self._ground.holdings.content(file_id)
        return [msgspec.json.decode(line, type=ResultLine) for line in content.splitlines()]

    async def _read(self, tenant: str, file_id: str, content: bytes) -> File:
        try:
            file, parts = await self._store.get_parts(tenant, file_id)
        except NotFound as error:
            raise Broken(f"{file_id} was acknowledged and does not exist") from error
        holdings = self._ground.holdings
        if holdings.has_lost(file_id) and not holdings.was_repaired(file_id):
            return file
        pieces = [await holdings.read(part.blob, part.offset, part.length) for part in parts]
        if b"".join(pieces) != content or file.bytes != len(content):
            raise Broken(f"{file_id} has other bytes than it should: {file}")
        return file
