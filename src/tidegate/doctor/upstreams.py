"""Checks of the model servers: whether they answer, accept the key, and serve the models."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import orjson

from tidegate.client.sanitize import sanitize
from tidegate.config import Settings
from tidegate.doctor.finding import Finding, fail, ok, warn
from tidegate.domain.errors import SettingsInvalid, TidegateError
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.wiring.inspect import opened_upstreams

ANSWER_SECONDS_MAX = 10.0
PROBE_SECONDS_MAX = 60.0
MODELS_SHOWN_MAX = 5
_OK = 200
_REFUSED = frozenset({401, 403})
_ABSENT = frozenset({404, 405, 501})


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def examine_upstreams(settings: Settings, *, probe: bool) -> AsyncIterator[Finding]:
    """Ask each model server for its models; with `probe` also for one token, which may cost."""
    area = "model server"
    if settings.upstream is None and not settings.upstreams:
        advice = "Set upstream.url or upstreams, for example --upstream http://127.0.0.1:8001."
        yield fail(area, "None is configured.", advice)
        return
    try:
        async with opened_upstreams(settings) as upstreams:
            for name, upstream in upstreams.items():
                wanted = None if settings.upstream is not None else name
                async for finding in _examine(name, upstream, wanted, probe=probe):
                    yield finding
    except SettingsInvalid as exc:
        yield fail(area, str(exc), "Fix the setting.")


async def _examine(
    name: str, upstream: Upstream, wanted: str | None, *, probe: bool
) -> AsyncIterator[Finding]:
    area = f"model server {sanitize(name, 60)}"
    try:
        reply, seconds = await _timed(
            upstream, Call(path="/v1/models", body=b"", method="GET"), ANSWER_SECONDS_MAX
        )
    except TidegateError as exc:
        yield fail(area, sanitize(str(exc)), "Start it, or fix its URL, TLS or firewall.")
        return
    except TimeoutError:
        message = f"It did not answer within {ANSWER_SECONDS_MAX:g} s."
        yield fail(area, message, "Check whether it hangs.")
        return
    models = _models(reply)
    yield _judge(area, reply, seconds, models, wanted)
    model = wanted or (models[0] if models else None)
    if probe and reply.status not in _REFUSED:
        yield await _probe(area, upstream, model)


def _judge(
    area: str, reply: Reply, seconds: float, models: Sequence[str] | None, wanted: str | None
) -> Finding:
    if reply.status in _REFUSED:
        return fail(
            area,
            f"It refuses the key ({reply.status}).",
            "Set api_key_file or api_key_env of this server to a key that it accepts.",
        )
    if models is None:
        return warn(
            area,
            f"It answers, but {_lack(reply.status)}.",
            "Name its models under upstreams, and check that it speaks OpenAI's API.",
        )
    if wanted is not None and wanted not in models:
        return warn(
            area,
            f"It does not list the model '{sanitize(wanted, 60)}'; it has {_shown(models)}.",
            "Fix the name under upstreams, unless the server maps it to another one.",
        )
    if not models:
        return warn(area, "It answers, but serves no model.", "Load a model there.")
    return ok(area, f"It answers in {seconds * 1000:.0f} ms and serves {_shown(models)}.")


async def _probe(area: str, upstream: Upstream, model: str | None) -> Finding:
    if model is None:
        return warn(area, "No model is known to probe.", "Name one under upstreams.")
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    call = Call(path="/v1/chat/completions", body=orjson.dumps(body))
    shown = sanitize(model, 60)
    try:
        reply, seconds = await _timed(upstream, call, PROBE_SECONDS_MAX)
    except (TidegateError, TimeoutError) as exc:
        message = sanitize(str(exc)) or f"no answer within {PROBE_SECONDS_MAX:g} s"
        return fail(area, f"'{shown}' gave no token: {message}.", "See the log of that server.")
    if reply.status != _OK:
        return warn(
            area,
            f"'{shown}' answers a chat request with {reply.status}.",
            "That is right for a model without chat; otherwise see the log of that server.",
        )
    return ok(area, f"'{shown}' gave one token in {seconds * 1000:.0f} ms.")


async def _timed(upstream: Upstream, call: Call, seconds_max: float) -> tuple[Reply, float]:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with asyncio.timeout(seconds_max):
        reply = await upstream.send(call)
    return reply, loop.time() - begin


def _lack(status: int) -> str:
    """Return how a server failed to list its models."""
    if status == _OK:
        return "not with a list of models"
    if status in _ABSENT:
        return "does not list its models"
    return f"answers {status} when asked for its models"


def _models(reply: Reply) -> Sequence[str] | None:
    if reply.status != _OK:
        return None
    try:
        found = msgspec.json.decode(reply.body, type=_Models)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return [model.id for model in found.data]


def _shown(models: Sequence[str]) -> str:
    names = ", ".join(sanitize(name, 60) for name in models[:MODELS_SHOWN_MAX])
    more = len(models) - MODELS_SHOWN_MAX
    return f"{names} and {more} more" if more > 0 else names or "none"
