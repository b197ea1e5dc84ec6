"""The File object, as OpenAI's clients read it."""

import orjson

from tidegate.domain.file import File


def file_object(file: File) -> bytes:
    """Return a File object.

    Its status is `processed` from the start: what is stored is whole, and clients that wait for
    processing would otherwise wait for half an hour.
    """
    return orjson.dumps(
        {
            "id": file.id,
            "object": "file",
            "bytes": file.bytes,
            "created_at": int(file.created_at),
            "expires_at": None if file.expires_at is None else int(file.expires_at),
            "filename": file.filename,
            "purpose": file.purpose.value,
            "status": "processed",
            "status_details": None,
        }
    )


def deleted_file_object(file_id: str) -> bytes:
    """Return the answer to a delete."""
    return orjson.dumps({"id": file_id, "object": "file", "deleted": True})
