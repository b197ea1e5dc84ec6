"""Checks once, before a run starts, that there is an OpenAI-compatible API at an address.

With a wrong path in the base URL every line of the run would be answered by a 404.
"""

import asyncio
from collections.abc import Mapping

from tidegate.domain.errors import Refused, UpstreamFault
from tidegate.upstreams.base import Call, Upstream

ANSWER_SECONDS_MAX = 5.0
MODELS = "/v1/models"
_UNKNOWN = 404


async def check_servers(servers: Mapping[str, Upstream], endpoint: str) -> None:
    """Check that each server, by its address, knows the list of models or this endpoint.

    Many servers have no list of models, and some are still starting, so any answer but 404 to one
    of the two paths passes, and so does no answer. The request to the endpoint has an empty body,
    which no server can run.

    Raises:
        Refused: a server knows neither.
    """
    for address, server in servers.items():
        models = Call(path=MODELS, body=b"", method="GET")
        if await _is_unknown(server, models) and await _is_unknown(
            server, Call(path=endpoint, body=b"")
        ):
            raise Refused(
                f"The model server at {address} answers 404 to {MODELS} and to {endpoint}, so it "
                "would to every line: give its base URL without /v1, such as "
                "--upstream http://127.0.0.1:8001, or add --no-check to send them all the same."
            )


async def _is_unknown(server: Upstream, call: Call) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reply = await server.send(call)
    except (UpstreamFault, TimeoutError):
        return False
    return reply.status == _UNKNOWN
