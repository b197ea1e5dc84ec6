"""Iterate over a list page by page."""

from collections.abc import AsyncIterator, Mapping

import msgspec

from tidegate.client.errors import UnexpectedResponse
from tidegate.client.objects import PageObject, decode
from tidegate.client.server import ApiClient

PAGE_ITEMS_MAX = 100


class _Identified(msgspec.Struct):
    id: str


async def list_items(
    server: ApiClient,
    path: str,
    *,
    limit: int | None = None,
    query: Mapping[str, str] | None = None,
) -> AsyncIterator[msgspec.Raw]:
    """Yield the items of a list as they come, at most `limit`; raises as `ApiClient.request` does.

    Raises:
        UnexpectedResponse: an answer is not a page, or a page has no successor.
    """
    after: str | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE_ITEMS_MAX if left is None else min(PAGE_ITEMS_MAX, left)
        asked = {**(query or {}), "limit": str(size)}
        if after is not None:
            asked["after"] = after
        page = decode(await server.request("GET", path, query=asked), PageObject)
        # A server that ignores `limit` must not make the list longer than requested.
        items = page.data if left is None else page.data[:left]
        for item in items:
            yield item
        if left is not None:
            left -= len(items)
        if not page.has_more:
            return
        last = decode(page.data[-1], _Identified).id if page.data else None
        if last is None or last == after:
            raise UnexpectedResponse(
                "The server reports more pages of the list, but gives no way to the next one."
            )
        after = last
