"""The body of a create is read as OpenAI reads it, and a Batch shows every key."""

import contextlib
import json

import pytest
from hypothesis import given, strategies as st

from tidegate.domain.batch import Batch, Counts, Problem, Status
from tidegate.domain.errors import Refused
from tidegate.domain.usage import Usage
from tidegate.wire.batch_request import BatchRequest, ExpiresAfter, decode_batch_request
from tidegate.wire.objects import encode_batch

GOOD: dict[str, object] = {
    "input_file_id": "file-1",
    "endpoint": "/v1/embeddings",
    "completion_window": "24h",
}
# Every key of OpenAI's Batch object.
KEYS = {
    "id",
    "object",
    "endpoint",
    "model",
    "errors",
    "input_file_id",
    "completion_window",
    "status",
    "output_file_id",
    "error_file_id",
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "request_counts",
    "usage",
    "metadata",
}


def refused(body: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        decode_batch_request(body)
    return caught.value


def test_a_whole_body_is_read() -> None:
    extra = {
        "metadata": {"a": "b"},
        "output_expires_after": {"anchor": "created_at", "seconds": 3600},
        "x_unknown": [1],
    }
    assert decode_batch_request(json.dumps(GOOD | extra).encode()) == BatchRequest(
        input_file_id="file-1",
        endpoint="/v1/embeddings",
        completion_window="24h",
        metadata={"a": "b"},
        output_expires_after=ExpiresAfter(anchor="created_at", seconds=3600),
    )


def test_null_stands_for_nothing_where_it_may() -> None:
    request = decode_batch_request(
        json.dumps(GOOD | {"metadata": None, "output_expires_after": None}).encode()
    )
    assert request.metadata is None
    assert request.output_expires_after is None


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_member_is_named(name: str) -> None:
    error = refused(json.dumps({key: GOOD[key] for key in GOOD if key != name}).encode())
    assert error.message == f"Missing required parameter: '{name}'."
    assert (error.param, error.code) == (name, "missing_required_parameter")


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        (
            {"metadata": {"tags": ["a"]}},
            "metadata.tags",
            "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
        ),
        (
            {"metadata": []},
            "metadata",
            "Invalid type for 'metadata': expected an object, but got an array instead.",
        ),
        (
            {"endpoint": None},
            "endpoint",
            "Invalid type for 'endpoint': expected a string, but got null instead.",
        ),
        (
            {"endpoint": True},
            "endpoint",
            "Invalid type for 'endpoint': expected a string, but got a boolean instead.",
        ),
        (
            {"completion_window": 24},
            "completion_window",
            "Invalid type for 'completion_window': expected a string, but got an integer instead.",
        ),
        (
            {"output_expires_after": "1h"},
            "output_expires_after",
            (
                "Invalid type for 'output_expires_after': expected an object, but got a string "
                "instead."
            ),
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 3600.5}},
            "output_expires_after.seconds",
            (
                "Invalid type for 'output_expires_after.seconds': expected an integer, but got a "
                "decimal instead."
            ),
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": True}},
            "output_expires_after.seconds",
            (
                "Invalid type for 'output_expires_after.seconds': expected an integer, but got a "
                "boolean instead."
            ),
        ),
    ],
)
def test_a_wrong_type_is_reported(change: dict[str, object], param: str, message: str) -> None:
    error = refused(json.dumps(GOOD | change).encode())
    assert (error.message, error.param, error.code) == (message, param, "invalid_type")


@pytest.mark.parametrize(
    ("expiry", "param"),
    [
        ({"seconds": 3600}, "output_expires_after.anchor"),
        ({"anchor": "created_at"}, "output_expires_after.seconds"),
    ],
)
def test_half_an_expiry_is_not_enough(expiry: dict[str, object], param: str) -> None:
    assert refused(json.dumps(GOOD | {"output_expires_after": expiry}).encode()).param == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"[]",
        b"null",
        b'"text"',
        b"12",
        b"{",
        b"{}x",
        b'{"a":NaN}',
        b'{"endpoint":"\xff"}',
        b'{"endpoint":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    error = refused(body)
    assert "JSON object" in error.message
    assert error.code is None


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise_anything_else(body: bytes) -> None:
    with contextlib.suppress(Refused):
        decode_batch_request(body)


def new_batch() -> Batch:
    return Batch(
        id="batch_1",
        tenant="default",
        endpoint="/v1/embeddings",
        input_file_id="file-1",
        completion_window="24h",
        status=Status.VALIDATING,
        created_at=1000.9,
        expires_at=87400.9,
    )


def test_a_new_batch_shows_every_key_and_zeros() -> None:
    shown = json.loads(encode_batch(new_batch()))
    assert set(shown) == KEYS | {"tidegate"}
    assert shown["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert shown["usage"] == {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    assert shown["created_at"] == 1000
    assert shown["expires_at"] - shown["created_at"] == 86400
    nulls = {key for key, value in shown.items() if value is None}
    assert nulls == {key for key in KEYS if key.endswith("_at")} - {"created_at", "expires_at"} | {
        "model",
        "errors",
        "output_file_id",
        "error_file_id",
        "metadata",
    }
    assert shown["tidegate"] == {"models": [], "waiting_for": None}


def test_a_batch_that_lived_shows_what_happened() -> None:
    batch = Batch(
        id="batch_1",
        tenant="default",
        endpoint="/v1/embeddings",
        input_file_id="file-1",
        completion_window="24h",
        status=Status.FAILED,
        created_at=1000.0,
        expires_at=2000.0,
        failed_at=1001.99,
        counts=Counts(total=5, completed=2, failed=3, expired=1),
        usage=Usage(input_tokens=5, cached_tokens=2, output_tokens=7, reasoning_tokens=3),
        models=("one", "two"),
        problems=(Problem(code="invalid_json_line", message="No.", line=3),),
        waiting_for="The endpoint rests.",
    )
    shown = json.loads(encode_batch(batch))
    assert shown["failed_at"] == 1001
    assert shown["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    assert shown["usage"]["total_tokens"] == 12
    assert shown["errors"] == {
        "object": "list",
        "data": [{"code": "invalid_json_line", "message": "No.", "param": None, "line": 3}],
    }
    assert shown["model"] is None
    assert shown["tidegate"] == {"models": ["one", "two"], "waiting_for": "The endpoint rests."}
