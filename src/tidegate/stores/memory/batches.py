"""Batches as users see them, in the memory ledger."""

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from tidegate.domain.batch import Batch, ask_cancel
from tidegate.domain.file import Part
from tidegate.domain.ledger import batches as batch_rules, files as file_rules
from tidegate.domain.ledger.values import Page, States
from tidegate.stores.memory.tables import Job, MemoryTables, page


class BatchVerbs(MemoryTables):
    """Batches as users see them."""

    @override
    async def create_batch(self, batch: Batch) -> Batch:
        batch_rules.check_new(batch)
        known = batch.id
        if batch.idempotency_key is not None:
            known = self._keys.get((batch.tenant, batch.idempotency_key), batch.id)
        if known in self._jobs:
            return self._jobs[known].batch
        entry = self._files.get(batch.input_file_id)
        holds_input = (
            entry is not None
            and entry.file.tenant == batch.tenant
            and file_rules.is_visible(entry.file, self._clock.now(), deleted=entry.deleted)
        )
        self._jobs[batch.id] = self._live[batch.id] = Job(batch, holds_input)
        if batch.idempotency_key is not None:
            self._keys[batch.tenant, batch.idempotency_key] = batch.id
        return batch

    @override
    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        return self._job(tenant, batch_id).batch

    @override
    async def list_batches(self, tenant: str, *, after: str | None, limit: int) -> Page[Batch]:
        mark = None if after is None else self._job(tenant, after, param="after").batch
        batches = [job.batch for job in self._jobs.values() if job.batch.tenant == tenant]
        return page(batches, mark, limit=limit, ascending=False)

    @override
    async def cancel_batch(self, tenant: str, batch_id: str, *, at: float) -> Batch:
        job = self._job(tenant, batch_id)
        job.batch = ask_cancel(job.batch, at)
        return job.batch

    @override
    async def get_states(self, batch_ids: Sequence[str]) -> States:
        found = {key: self._jobs[key].batch.status for key in batch_ids if key in self._jobs}
        return States(now=self._clock.now(), by_id=found)

    @override
    async def note_waiting(self, batch_id: str, reason: str | None) -> None:
        job = self._live.get(batch_id)
        if job is not None:
            job.batch = replace(job.batch, waiting_for=reason)

    @override
    async def get_input(self, batch_id: str) -> tuple[Part, ...] | None:
        job = self._jobs.get(batch_id)
        if job is None or not job.holds_input:
            return None
        entry = self._files.get(job.batch.input_file_id)
        return None if entry is None or entry.released else tuple(entry.parts)

    def _job(self, tenant: str, batch_id: str, *, param: str | None = None) -> Job:
        job = self._jobs.get(batch_id)
        if job is None or job.batch.tenant != tenant:
            raise batch_rules.no_batch(batch_id, param=param)
        return job
