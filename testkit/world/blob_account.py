"""The bytes that rows point to, by an account of its own: none may go, change or move.

A readable byte keeps its offset (PROTOCOL 12); a blob that a row points to, or comes to point to
later, is never deleted (PROTOCOL 18).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from testkit.world.broken import Broken
from tidegate.blobs.base import BlobStore
from tidegate.domain.batch import Batch
from tidegate.domain.errors import BlobMissing
from tidegate.domain.file import File, Part, cut, merged
from tidegate.domain.ledger.values import Repair
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store


class _InputLine(msgspec.Struct):
    custom_id: str


@dataclass(slots=True)
class KnownFile:
    """A file: its bytes as users could read them, and where they lie."""

    tenant: str
    parts: list[Part] = field(default_factory=list)
    content: bytes = b""
    expires_at: float | None = None
    growing: bool = False
    deleted: bool = False
    released: bool = False


class BlobAccount:
    """Which blobs are needed, by whom and for how long. `now` is the time of the ledger."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self.files: dict[str, KnownFile] = {}
        self._gone: set[str] = set()
        self._retained: dict[str, float] = {}
        self._inputs: dict[str, str] = {}
        self._live: dict[str, Batch] = {}
        self.vanished: set[str] = set()
        self._repaired: set[str] = set()

    def content(self, file_id: str | None) -> bytes:
        """Return the bytes of a file as far as the account knows them."""
        kept = self.files.get(file_id or "")
        return b"" if kept is None else kept.content

    async def read(self, blob: str, offset: int, length: int) -> bytes:
        """Return bytes that a row points to.

        Raises:
            Broken: they are not there.
        """
        try:
            return await self._blobs.read(blob, offset, length)
        except BlobMissing as error:
            raise Broken(f"a row points to bytes that are not there: {error}") from error

    async def _bytes(self, part: Part) -> bytes:
        return await self.read(part.blob, part.offset, part.length)

    def refer(self, blob: str) -> None:
        """Record that a row points to a blob from now on."""
        if blob in self._gone:
            raise Broken(f"a row points to {blob}, which was deleted or fenced before")

    # Files

    async def after_finish_upload(
        self, answer: File, _upload_id: str, _file: File, parts: Sequence[Part]
    ) -> None:
        """Record an uploaded file."""
        if answer.id in self.files:
            return
        content = b"".join([await self.read(part.blob, part.offset, part.length) for part in parts])
        if len(content) != answer.bytes:
            raise Broken(f"{answer} has {len(content)} bytes")
        kept = KnownFile(answer.tenant, merged(parts), content, answer.expires_at)
        self.files[answer.id] = kept
        for part in parts:
            self.refer(part.blob)

    async def after_delete_file(self, _answer: None, _tenant: str, file_id: str) -> None:
        """Record that a user deleted a file."""
        kept = self.files[file_id]
        if kept.growing:
            raise Broken(f"{file_id} was deleted while it grew")
        kept.deleted = True

    async def grow(self, batch: Batch, file_id: str | None, parts: Sequence[Part]) -> None:
        """Record slices at the end of a batch's file, and hold the file to its bytes so far."""
        if not parts:
            return
        assert file_id is not None, batch
        kept = self.files.setdefault(file_id, KnownFile(batch.tenant, growing=True))
        for part in parts:
            self.refer(part.blob)
            kept.content += await self.read(part.blob, part.offset, part.length)
        await self._check(file_id, kept)

    async def _check(self, file_id: str, kept: KnownFile) -> None:
        """Hold what a file consists of to its bytes; what has not moved is not read again."""
        file, parts = await self._store.get_parts(kept.tenant, file_id)
        length = sum(part.length for part in parts)
        if length != len(kept.content) or file.bytes != length:
            raise Broken(f"{file_id} has {length} bytes of {len(kept.content)}: {file}")
        known = sum(part.length for part in kept.parts)
        same = known if merged(cut(parts, 0, known)) == kept.parts else 0
        position = same
        for part in cut(parts, same, length - same):
            known = position + part.length
            stolen = part.blob in self.vanished
            if not stolen and await self._bytes(part) != kept.content[position:known]:
                raise Broken(f"bytes of {file_id} have changed or moved")
            position = known
        kept.parts = merged(parts)
        kept.growing = file.growing
        kept.expires_at = file.expires_at

    async def repaired(self, repair: Repair) -> None:
        """Record that files lost the slices whose bytes were gone."""
        for change in repair.files:
            self._repaired.add(change.file_id)
            kept = self.files[change.file_id]
            pieces = [await self.read(part.blob, part.offset, part.length) for part in change.new]
            kept.content, kept.parts = b"".join(pieces), merged(change.new)
            await self._check(change.file_id, kept)

    def was_repaired(self, file_id: str) -> bool:
        """Return whether a file was repaired: then its bytes have moved, and some are new."""
        return file_id in self._repaired

    def has_lost(self, file_id: str) -> bool:
        """Return whether a file lost some of its bytes, repaired or not."""
        kept = self.files[file_id]
        robbed = any(part.blob in self.vanished for part in kept.parts)
        return robbed or self.was_repaired(file_id)

    # Batches

    def created(self, batch: Batch, *, holds_input: bool) -> None:
        """Record a batch, which may hold its input."""
        if holds_input:
            self._inputs[batch.id] = batch.input_file_id

    def holds_input(self, batch_id: str) -> bool:
        """Return whether a live batch holds its input, and all of that is there."""
        kept = self.files.get(self._inputs.get(batch_id, ""))
        return kept is not None and not self.vanished & {part.blob for part in kept.parts}

    def saw(self, batch: Batch) -> None:
        """Record a batch as it is now."""
        if batch.is_terminal:
            self._live.pop(batch.id, None)
            self._inputs.pop(batch.id, None)
        else:
            self._live[batch.id] = batch

    async def ended(self, batch: Batch) -> None:
        """Record that the files of a batch grow no more."""
        for file_id in (batch.output_file_id, batch.error_file_id):
            kept = self.files.get(file_id or "")
            if file_id is not None and kept is not None and kept.growing:
                await self._check(file_id, kept)
                if kept.growing:
                    raise Broken(f"{file_id} still grows after the end of its batch")

    def check_plan(self, batch: Batch, planned: Counter[str], total: int) -> None:
        """Hold a plan to the lines of its input."""
        lines = self.files[batch.input_file_id].content.splitlines()
        names = Counter(msgspec.json.decode(line, type=_InputLine).custom_id for line in lines)
        if planned != names or total != names.total():
            raise Broken(f"the plan of {batch.id} has {total} lines of {names.total()}")

    # Garbage

    async def after_release_files(
        self, answer: Sequence[str], _file_ids: Sequence[str], *, keep_seconds: float
    ) -> None:
        """Record that the ledger released the bytes of files that no process may need."""
        for file_id in answer:
            kept = self.files[file_id]
            if kept.released:
                continue
            over = kept.expires_at is not None and self._clock.now() >= kept.expires_at
            if not (kept.deleted or over) or file_id in self._inputs.values():
                raise Broken(f"{file_id} was released, though it is needed: {kept}")
            kept.released = True
            for part in kept.parts:
                self._retained[part.blob] = self._clock.now() + keep_seconds

    async def after_swap_parts(
        self,
        answer: bool,  # noqa: FBT001 - the ledger's own answer
        _upload_id: str,
        file_id: str,
        *,
        old: Sequence[Part],
        new: Sequence[Part],
        keep_seconds: float,
    ) -> None:
        """Record a compaction: the same bytes, elsewhere."""
        if not answer or file_id not in self.files:
            return
        for part in new:
            self.refer(part.blob)
        for part in old:
            self._retained[part.blob] = self._clock.now() + keep_seconds
        kept = self.files[file_id]
        if not kept.deleted:
            await self._check(file_id, kept)

    async def after_fence_and_list_deletable(
        self, answer: Sequence[str], _names: Sequence[str], *, idle_seconds: float
    ) -> None:
        """Record which blobs may be deleted: from now on no row may ever point to them."""
        assert idle_seconds >= 0.0, idle_seconds
        for name in answer:
            self.check_gone(name)

    def deleted(self, name: str) -> None:
        """Record that a blob is deleted."""
        self.check_gone(name)
        self._retained.pop(name, None)

    def check_gone(self, name: str) -> None:
        """Fail if a blob is deleted that a row or a reader needs.

        How long readers need it is asked once, when it is let go: the ledger's clock may be set
        back before the blob is deleted.
        """
        for file_id, kept in self.files.items():
            if not kept.released and any(part.blob == name for part in kept.parts):
                raise Broken(f"{name} goes, though {file_id} points to it")
        for batch in self._live.values():
            if batch.plan_blob == name:
                raise Broken(f"{name} goes, though {batch.id} still runs by it")
        if name not in self._gone and self._retained.get(name, 0.0) > self._clock.now():
            raise Broken(f"{name} goes, though readers may still be at it")
        self._gone.add(name)

    def needed(self) -> set[str]:
        """Return every blob that a row points to."""
        kept = (kept for kept in self.files.values() if not kept.released)
        return {part.blob for file in kept for part in file.parts}

    def is_growing(self, name: str) -> bool:
        """Return whether the batch that a blob of results is named for still runs."""
        return name.split("/")[1] in self._live

    def lost(self, name: str) -> None:
        """Record a fault: a blob has vanished."""
        self.vanished.add(name)
