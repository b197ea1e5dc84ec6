"""Uploads and files, in the memory ledger."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.domain.file import File, Part, Purpose, merged
from tidegate.domain.ledger import files as file_rules
from tidegate.domain.ledger.values import Fragmented, Page
from tidegate.stores.memory.tables import Entry, MemoryTables, Upload, page


class FileVerbs(MemoryTables):
    """Uploads and files."""

    @override
    async def begin_upload(self, upload_id: str, *, tenant: str, blob: str, at: float) -> None:
        self._uploads.setdefault(upload_id, Upload(tenant, blob, at))

    @override
    async def finish_upload(self, upload_id: str, file: File, parts: Sequence[Part]) -> File:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.abandoned:
            raise file_rules.upload_lost(upload_id)
        if upload.file_id is None:
            file_rules.check_upload(file, parts, tenant=upload.tenant)
            self._files[file.id] = Entry(file, merged(parts))
            upload.file_id = file.id
        return self._files[upload.file_id].file

    @override
    async def abandon_upload(self, upload_id: str) -> bool:
        upload = self._uploads.get(upload_id)
        if upload is None:
            return True
        upload.abandoned = upload.file_id is None
        return upload.abandoned

    @override
    async def get_file(self, tenant: str, file_id: str) -> File:
        return self._visible(tenant, file_id).file

    @override
    async def get_parts(self, tenant: str, file_id: str) -> tuple[File, tuple[Part, ...]]:
        entry = self._visible(tenant, file_id)
        return entry.file, tuple(entry.parts)

    @override
    async def list_files(
        self,
        tenant: str,
        *,
        after: str | None,
        limit: int,
        ascending: bool,
        purpose: Purpose | None,
    ) -> Page[File]:
        now = self._clock.now()
        mark = None
        if after is not None:
            entry = self._files.get(after)
            if entry is None or entry.file.tenant != tenant:
                raise file_rules.no_file(after, param="after")
            mark = entry.file
        files = [
            entry.file
            for entry in self._files.values()
            if entry.file.tenant == tenant
            and file_rules.is_visible(entry.file, now, deleted=entry.deleted)
            and (purpose is None or entry.file.purpose is purpose)
        ]
        return page(files, mark, limit=limit, ascending=ascending)

    @override
    async def delete_file(self, tenant: str, file_id: str) -> None:
        entry = self._visible(tenant, file_id)
        file_rules.check_deletable(entry.file)
        entry.deleted = True

    @override
    async def list_fragmented(self, *, parts_min: int, limit: int) -> list[Fragmented]:
        assert parts_min > 0, parts_min
        assert limit > 0, limit
        now = self._clock.now()
        found = [
            Fragmented(
                file_id=entry.file.id,
                tenant=entry.file.tenant,
                parts=len(entry.parts),
                bytes=entry.file.bytes,
            )
            for entry in self._files.values()
            if len(entry.parts) >= parts_min
            and file_rules.is_visible(entry.file, now, deleted=entry.deleted)
        ]
        return sorted(found, key=lambda one: (-one.parts, one.file_id))[:limit]

    @override
    async def swap_parts(
        self,
        upload_id: str,
        file_id: str,
        *,
        old: Sequence[Part],
        new: Sequence[Part],
        keep_seconds: float,
    ) -> bool:
        upload, entry = self._uploads.get(upload_id), self._files.get(file_id)
        if upload is not None and upload.file_id is not None:
            return upload.file_id == file_id
        if upload is None or upload.abandoned or entry is None:
            return False
        file_rules.check_swap(old, new, upload.blob)
        hidden = not file_rules.is_visible(entry.file, self._clock.now(), deleted=entry.deleted)
        if hidden or entry.parts[: len(old)] != list(old):
            return False
        assert upload.tenant == entry.file.tenant, "the upload of another tenant"
        entry.parts = merged([*new, *entry.parts[len(old) :]])
        upload.file_id = file_id
        self._retain({part.blob for part in old} - self._needed(), keep_seconds)
        return True

    def _visible(self, tenant: str, file_id: str) -> Entry:
        entry = self._files.get(file_id)
        if (
            entry is None
            or entry.file.tenant != tenant
            or not file_rules.is_visible(entry.file, self._clock.now(), deleted=entry.deleted)
        ):
            raise file_rules.no_file(file_id)
        return entry
