"""Asks a server everything, and writes down what its answers are like."""

from collections.abc import Mapping

import httpx
import msgspec

from testkit.parity.probes import Probe, probes
from testkit.parity.shapes import Family, Shape, events_of, families_of, shape_of

ASK_SECONDS = 60.0
NO_ANSWER = 0
MESSAGE_CHARACTERS_MAX = 300
_HEADERS = ("allow", "content-type", "retry-after", "www-authenticate")


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one answer is like.

    Attributes:
        status: of HTTP; `NO_ANSWER` where none came.
        headers: those that matter.
        shape: of a JSON body; None for another one.
        events: the kinds of events of a stream.
        message: of an error; it is kept for readers, and not compared.
    """

    status: int
    headers: dict[str, str] = {}
    shape: Shape | None = None
    events: list[Shape] = []
    message: str = ""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """All answers of one server.

    Attributes:
        server: what it is, in words.
        model: that was asked for.
        length_max: how many tokens a request may have there, or None.
        answers: by the name of the probe.
        metrics: the families that it shows.
    """

    server: str
    model: str
    length_max: int | None
    answers: dict[str, Answer]
    metrics: dict[str, Family]


class _Card(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class _Cards(msgspec.Struct, frozen=True):
    data: list[_Card]


async def record(url: str, server: str = "", model: str | None = None) -> Recording:
    """Ask the server at a base URL without a path; `model` is the first that it names, else.

    Raises:
        httpx.HTTPError: it can't be reached at first.
        msgspec.MsgspecError: what it serves is not a list of models.
    """
    # Each question has a connection of its own: what one breaks does not break the next.
    alone = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=ASK_SECONDS, limits=alone) as client:
        cards = msgspec.json.decode((await client.get("/v1/models")).content, type=_Cards).data
        asked = model or cards[0].id
        answers: dict[str, Answer] = {}
        families: Mapping[str, Family] = {}
        for probe in probes(asked):
            try:
                reply = await _ask(client, probe)
            except httpx.TransportError as error:
                answers[probe.name] = Answer(status=NO_ANSWER, message=type(error).__name__)
                continue
            answers[probe.name] = answer_of(reply)
            if probe.name == "metrics" and reply.is_success:
                families = families_of(reply.text)
    length_max = next((card.max_model_len for card in cards if card.id == asked), None)
    return Recording(
        server=server, model=asked, length_max=length_max, answers=answers, metrics=dict(families)
    )


async def _ask(client: httpx.AsyncClient, probe: Probe) -> httpx.Response:
    if probe.body is None:
        return await client.get(probe.path)
    headers = {"content-type": "application/json"}
    return await client.post(probe.path, content=probe.body, headers=headers)


def answer_of(reply: httpx.Response) -> Answer:
    """Return what a reply is like."""
    headers = {name: reply.headers[name] for name in _HEADERS if name in reply.headers}
    if "content-type" in headers:
        # The version of a text format does not matter to its readers.
        headers["content-type"] = headers["content-type"].partition(";")[0]
    text = reply.text
    if headers.get("content-type") == "text/event-stream":
        return Answer(status=reply.status_code, headers=headers, events=events_of(text))
    try:
        value = msgspec.json.decode(reply.content)
    except msgspec.DecodeError:
        return Answer(status=reply.status_code, headers=headers)
    return Answer(
        status=reply.status_code,
        headers=headers,
        shape=shape_of(value),
        message="" if reply.is_success else text[:MESSAGE_CHARACTERS_MAX],
    )
