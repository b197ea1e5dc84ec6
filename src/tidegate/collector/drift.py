"""Compares every blob that the ledger needs with the blob store (PROTOCOL 19)."""

from collections.abc import AsyncIterator
from dataclasses import replace

from typing_extensions import override

from tidegate.collector.duty import PIECE, Duty
from tidegate.collector.repair import repair
from tidegate.collector.report import NAMES_MAX, Damage, Report
from tidegate.collector.survivors import Unclear
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import BlobMissing, BlobUnreadable
from tidegate.domain.ledger.values import Reference

_RUNNING = frozenset({Status.IN_PROGRESS, Status.CANCELLING})


class Drift(Duty):
    """Finds blobs that are missing or too short. Lines that a running batch lost run again.

    Damage that can't be repaired is reported on every pass: to results of a batch that has ended,
    to an input or a plan, and bytes that exist but can't be read.
    """

    @override
    async def plan(self) -> Report:
        done = Report()
        async for damage, _ in self._damages():
            done += _report(damage)
        return done

    @override
    async def act(self) -> Report:
        context = self._context
        done = Report()
        repaired: dict[str, int] = {}
        async for damage, batches in self._damages():
            reported = damage
            if damage.readable and len(batches) == 1 and _is_running(batches[0], damage.blob):
                batch = batches[0]
                if batch.id not in repaired:
                    repaired[batch.id] = await self._repair(batch)
                reported = replace(damage, repaired=repaired[batch.id] > 0)
            if not reported.repaired:
                context.observer.on_blob_damaged(
                    reported.blob,
                    needed=reported.needed,
                    found=reported.found,
                    batches=reported.batches,
                )
            done += _report(reported)
        context.observer.on_drift(done.drift)
        return done + Report(lines_rerun=sum(repaired.values()))

    async def _repair(self, batch: Batch) -> int:
        """Return how many lines run again; 0 if the damage is not clear."""
        try:
            lines = await repair(self._context.store, self._context.blobs, batch)
        except Unclear:
            return 0
        self._context.observer.on_lines_rerun(batch.id, lines)
        return lines

    async def _damages(self) -> AsyncIterator[tuple[Damage, list[Batch]]]:
        store = self._context.store
        after = ""
        while True:
            await self._pace.turn()
            references = await store.list_references(after=after, limit=PIECE)
            for reference in references:
                damage = await self._check(reference)
                if damage is not None:
                    batches = await store.list_batches_of(reference.blob)
                    names = tuple(batch.id for batch in batches[:NAMES_MAX])
                    yield replace(damage, batches=names), batches
            if len(references) < PIECE:
                return
            after = references[-1].blob

    async def _check(self, reference: Reference) -> Damage | None:
        """Return the damage of a blob; None if it is whole, or not needed any more."""
        store, blobs, name = self._context.store, self._context.blobs, reference.blob
        found: int | None = None
        readable = True
        try:
            found = await blobs.length(name)
        except BlobUnreadable:
            readable = False
        except BlobMissing:
            # A blob that is listed all the same is not lost, but unreadable.
            readable = name not in await blobs.list_names(name, limit=1)
        if found is not None and found >= reference.bytes_needed:
            return None
        if await store.list_unreferenced([name]):
            return None
        return Damage(blob=name, needed=reference.bytes_needed, found=found, readable=readable)


def _is_running(batch: Batch, blob: str) -> bool:
    return batch.status in _RUNNING and batch.plan_blob is not None and batch.plan_blob != blob


def _report(damage: Damage) -> Report:
    return Report(drift=int(not damage.repaired), damages=(damage,))
