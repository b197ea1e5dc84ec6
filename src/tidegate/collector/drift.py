"""Every blob that the ledger needs is compared with what is there (PROTOCOL 19)."""

from collections.abc import AsyncIterator
from dataclasses import replace

from typing_extensions import override

from tidegate.collector.duty import Duty
from tidegate.collector.pace import PIECE
from tidegate.collector.repair import repair
from tidegate.collector.report import NAMES_MAX, Damage, Report
from tidegate.collector.survivors import Unclear
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import BlobMissing, BlobUnreadable
from tidegate.domain.ledger.values import Reference

_RUNNING = frozenset({Status.IN_PROGRESS, Status.CANCELLING})


class Drift(Duty):
    """Finds blobs that are missing or too short. What a running batch lost runs again.

    Whatever can't be mended is reported, on every pass anew: bytes of a batch that has ended, of an
    input, of a plan, and those that are there but can't be read.
    """

    @override
    async def plan(self) -> Report:
        done = Report()
        async for damage, _ in self._damages():
            done += _report(damage)
        return done

    @override
    async def act(self) -> Report:
        tools = self._tools
        done = Report()
        mended: dict[str, int] = {}
        async for damage, batches in self._damages():
            told = damage
            if damage.readable and len(batches) == 1 and _is_running(batches[0], damage.blob):
                batch = batches[0]
                if batch.id not in mended:
                    mended[batch.id] = await self._mend(batch)
                told = replace(damage, mended=mended[batch.id] > 0)
            if not told.mended:
                tools.observer.on_blob_damaged(
                    told.blob, needed=told.needed, found=told.found, batches=told.batches
                )
            done += _report(told)
        tools.observer.on_drift(done.drift)
        return done + Report(lines_rerun=sum(mended.values()))

    async def _mend(self, batch: Batch) -> int:
        """Return how many lines run again; 0 where that can't be told for certain."""
        try:
            lines = await repair(self._tools.store, self._tools.blobs, batch)
        except Unclear:
            return 0
        self._tools.observer.on_lines_rerun(batch.id, lines)
        return lines

    async def _damages(self) -> AsyncIterator[tuple[Damage, list[Batch]]]:
        store = self._tools.store
        after = ""
        while True:
            await self._pace.turn()
            references = await store.list_references(after=after, limit=PIECE)
            for reference in references:
                damage = await self._judge(reference)
                if damage is not None:
                    batches = await store.list_batches_of(reference.blob)
                    names = tuple(batch.id for batch in batches[:NAMES_MAX])
                    yield replace(damage, batches=names), batches
            if len(references) < PIECE:
                return
            after = references[-1].blob

    async def _judge(self, reference: Reference) -> Damage | None:
        """Return what is wrong with a blob, unless nobody needs it any more."""
        store, blobs, name = self._tools.store, self._tools.blobs, reference.blob
        found: int | None = None
        readable = True
        try:
            found = await blobs.length(name)
        except BlobUnreadable:
            readable = False
        except BlobMissing:
            # One that is listed all the same is no file that was lost.
            readable = name not in await blobs.list_names(name, limit=1)
        if found is not None and found >= reference.bytes_needed:
            return None
        if await store.list_unreferenced([name]):
            return None
        return Damage(blob=name, needed=reference.bytes_needed, found=found, readable=readable)


def _is_running(batch: Batch, blob: str) -> bool:
    return batch.status in _RUNNING and batch.plan_blob is not None and batch.plan_blob != blob


def _report(damage: Damage) -> Report:
    return Report(drift=int(not damage.mended), damages=(damage,))
