"""Names of blobs show who may write them, and no other name is accepted."""

import pytest

from tidegate.domain.blob_names import BlobName, PlanBlob, ResultBlob, UploadBlob, parse


@pytest.mark.parametrize(
    "blob",
    [
        UploadBlob(upload_id="upload_1"),
        PlanBlob(batch_id="batch_1", epoch=12),
        ResultBlob(batch_id="batch_1", writer="writer_1", label="results"),
        ResultBlob(batch_id="batch_1", writer="writer_1", label="seg_1"),
    ],
)
def test_a_name_says_what_it_was_made_of(blob: BlobName) -> None:
    assert parse(blob.name) == blob


@pytest.mark.parametrize(
    "name",
    [
        "",
        "uploads/",
        "uploads/a/b",
        "plans/batch_1",
        "plans/batch_1/x",
        "plans/batch_1/-1",
        "results/batch_1/writer",
        "results/batch_1/writer.",
        "results/writer.results",
        "notes.txt",
    ],
)
def test_other_names_are_none_of_ours(name: str) -> None:
    assert parse(name) is None
