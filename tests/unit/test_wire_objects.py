"""Files, models, lists and errors, as OpenAI's clients read them."""

import json

import pytest

from tidegate.domain.file import File, Purpose
from tidegate.wire.objects import (
    encode_deleted_file,
    encode_error,
    encode_file,
    encode_model,
    encode_models,
    encode_page,
)


def a_file(*, expires_at: float | None) -> File:
    return File(
        id="file-1",
        tenant="default",
        filename='a "b".jsonl',
        purpose=Purpose.BATCH,
        bytes=5,
        created_at=1000.7,
        expires_at=expires_at,
    )


@pytest.mark.parametrize(("expires_at", "shown"), [(None, None), (2000.7, 2000)])
def test_a_file_is_processed_from_the_start(expires_at: float | None, shown: int | None) -> None:
    assert json.loads(encode_file(a_file(expires_at=expires_at))) == {
        "id": "file-1",
        "object": "file",
        "bytes": 5,
        "created_at": 1000,
        "expires_at": shown,
        "filename": 'a "b".jsonl',
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }


def test_a_deleted_file() -> None:
    assert json.loads(encode_deleted_file("file-1")) == {
        "id": "file-1",
        "object": "file",
        "deleted": True,
    }


def test_an_empty_list() -> None:
    assert json.loads(encode_page([], first_id=None, last_id=None, has_more=False)) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_list_names_its_ends() -> None:
    items = [b'{"id":"a"}', b'{"id":"b"}']
    assert json.loads(encode_page(items, first_id="a", last_id="b", has_more=True)) == {
        "object": "list",
        "data": [{"id": "a"}, {"id": "b"}],
        "first_id": "a",
        "last_id": "b",
        "has_more": True,
    }


def test_an_error_has_four_keys() -> None:
    body = encode_error(message="No.", kind="invalid_request_error", param=None, code="x")
    assert json.loads(body) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": "x"}
    }


def test_models() -> None:
    shown = {"id": "a/b", "object": "model", "created": 9, "owned_by": "tidegate"}
    assert json.loads(encode_model("a/b", created_at=9.9)) == shown
    assert json.loads(encode_models(["a/b", "a/b"], created_at=9.9)) == {
        "object": "list",
        "data": [shown, shown],
    }
    assert json.loads(encode_models([], created_at=9.9)) == {"object": "list", "data": []}
