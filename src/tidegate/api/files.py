"""`/v1/files`: upload, list, look at, delete."""

from contextlib import aclosing

from tidegate.api import body, multipart, query
from tidegate.api.content import content_reply
from tidegate.api.responses import Reply, json_reply, list_reply
from tidegate.api.routing import ONE, Request, Route
from tidegate.api.settings import Limits
from tidegate.application.context import Application
from tidegate.application.files import delete_file, list_files, open_content, read_file, upload
from tidegate.wire.objects import encode_deleted_file, encode_file

FORM_BYTES_MAX = 2**20  # What a form may add to its file: fields, part headers, boundaries.


class FilesApi:
    """Answers for files."""

    def __init__(self, app: Application, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    def routes(self) -> list[Route]:
        """Return the paths that this room answers."""
        return [
            Route(steps=("files",), handlers={"POST": self._upload, "GET": self._list}),
            Route(steps=("files", ONE), handlers={"GET": self._read, "DELETE": self._delete}),
            Route(steps=("files", ONE, "content"), handlers={"GET": self._content}),
        ]

    async def _upload(self, request: Request) -> Reply:
        settings = self._app.settings
        boundary = multipart.boundary_of(request.headers.get("content-type"))
        pieces = body.read_chunks(
            request.receive,
            declared=request.headers.get("content-length"),
            bytes_max=max(settings.file_bytes_max, settings.other_file_bytes_max) + FORM_BYTES_MAX,
            limits=self._limits,
        )
        form = multipart.events(pieces, boundary=boundary, limits=self._limits)
        async with aclosing(pieces), aclosing(form):
            return json_reply(encode_file(await upload(self._app, request.caller, form)))

    async def _list(self, request: Request) -> Reply:
        page = await list_files(
            self._app,
            request.caller,
            after=query.read_text(request.query, "after"),
            limit=query.read_integer(request.query, "limit"),
            ascending=query.read_ascending(request.query),
            purpose=query.read_purpose(request.query),
        )
        return await list_reply(
            page.items, encode_file, identify=lambda file: file.id, has_more=page.has_more
        )

    async def _read(self, request: Request) -> Reply:
        file = await read_file(self._app, request.caller, request.captured[0])
        return json_reply(encode_file(file))

    async def _delete(self, request: Request) -> Reply:
        file_id = await delete_file(self._app, request.caller, request.captured[0])
        return json_reply(encode_deleted_file(file_id))

    async def _content(self, request: Request) -> Reply:
        content = await open_content(self._app, request.caller, request.captured[0])
        return await content_reply(content, request)
