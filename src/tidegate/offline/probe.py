"""Is there an OpenAI-compatible API at that address? Asked once, before a run begins.

A base URL with a wrong path answers 404 to every line, and the whole run would come to nothing.
"""

import asyncio
from collections.abc import Mapping

from tidegate.domain.errors import Refused, UpstreamFault
from tidegate.upstreams.base import Call, Upstream

ANSWER_SECONDS_MAX = 5.0
MODELS = "/v1/models"
_UNKNOWN = 404


async def check_servers(servers: Mapping[str, Upstream], endpoint: str) -> None:
    """Ask each server, by its address, whether it knows the list of models or this endpoint.

    Many servers have no list of models, and some are only starting: whoever knows one of the two
    paths, says anything else or says nothing in time is taken at its word later. The endpoint is
    asked with an empty body, which no server can run.

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
