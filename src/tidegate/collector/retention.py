"""Removes batches that ended long ago, and rows that are no longer needed."""

from typing_extensions import override

from tidegate.collector.duty import PIECE, PREVIEW_MAX, Duty
from tidegate.collector.report import Report


class Retention(Duty):
    """Drops old batches, then purges old rows of files and uploads."""

    @override
    async def plan(self) -> Report:
        old = await self._context.store.list_old_batches(
            ended_seconds=self._settings.retention_seconds, limit=PREVIEW_MAX
        )
        return Report(batches_dropped=len(old))

    @override
    async def act(self) -> Report:
        return await self._drop() + await self._purge()

    async def _drop(self) -> Report:
        store = self._context.store
        done = Report()
        while True:
            await self._pace.turn()
            old = await store.list_old_batches(
                ended_seconds=self._settings.retention_seconds, limit=PIECE
            )
            count = await store.drop_batches([batch.batch_id for batch in old]) if old else 0
            self._context.observer.on_batches_removed(count)
            done += Report(batches_dropped=count)
            if len(old) < PIECE or not count:
                return done

    async def _purge(self) -> Report:
        done = Report()
        while True:
            await self._pace.turn()
            gone = await self._context.store.purge(
                age_seconds=self._settings.retention_seconds, limit=PIECE
            )
            count = gone.files + gone.uploads
            done += Report(rows_purged=count)
            if not count:
                return done
