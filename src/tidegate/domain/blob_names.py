"""The writer that a blob's name encodes, so that a collector can fence it first.

A name carries the id of an upload, the epoch of a planning, or the writer of results: each of them
can be ended for good in the ledger (PROTOCOL 18), which age can't.
"""

import re
from dataclasses import dataclass

_UPLOAD = re.compile(r"uploads/([^/]+)")
_PLAN = re.compile(r"plans/([^/]+)/(\d{1,18})")
_RESULT = re.compile(r"results/([^/]+)/([^/.]+)\.([^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadBlob:
    """Bytes that a user uploads, or that a compaction rewrites."""

    upload_id: str

    @property
    def name(self) -> str:
        """Return the blob's name."""
        return f"uploads/{self.upload_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBlob:
    """The plan of a batch, as written under one epoch of its planning."""

    batch_id: str
    epoch: int

    @property
    def name(self) -> str:
        """Return the blob's name."""
        return f"plans/{self.batch_id}/{self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultBlob:
    """Results of a batch by one writer. `label` distinguishes its blobs."""

    batch_id: str
    writer: str
    label: str

    @property
    def name(self) -> str:
        """Return the blob's name."""
        return f"results/{self.batch_id}/{self.writer}.{self.label}"


BlobName = UploadBlob | PlanBlob | ResultBlob


def parse(name: str) -> BlobName | None:
    """Return the parsed name, or None if it has no known form."""
    if found := _UPLOAD.fullmatch(name):
        return UploadBlob(upload_id=found[1])
    if found := _PLAN.fullmatch(name):
        return PlanBlob(batch_id=found[1], epoch=int(found[2]))
    if found := _RESULT.fullmatch(name):
        return ResultBlob(batch_id=found[1], writer=found[2], label=found[3])
    return None
