"""The simulated server itself, as a raw ASGI application: quick enough for 50,000 lines.

It serves chat completions, completions (both also as streams), embeddings, responses, the list of
models, `/health` and `/metrics`. See `tidegate.simulator.orders` for faults.
"""

import asyncio
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from starlette.types import Receive, Scope, Send

from tidegate.runtime.clock import Clock
from tidegate.simulator import answers
from tidegate.simulator.answers import Answer, think
from tidegate.simulator.exchange import (
    Answered,
    Gone,
    read,
    rest,
    send_events,
    send_half,
    send_whole,
)
from tidegate.simulator.orders import HEADER_PREFIX, Order, Orders
from tidegate.simulator.prose import Prose
from tidegate.simulator.question import (
    Body,
    Question,
    Unacceptable,
    ask_chat,
    ask_completion,
    ask_embedding,
    ask_response,
    read_body,
)
from tidegate.simulator.settings import SimulatorSettings

CREATED = 1_700_000_000

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Route:
    """How one endpoint reads a question and writes the answer; None where it writes vectors."""

    ask: Callable[[Body], Question]
    write: Callable[[Answer], bytes] | None
    stream: Callable[[Answer], Iterator[bytes]] | None = None


_ROUTES = {
    "/v1/chat/completions": Route(ask_chat, answers.write_chat, answers.stream_chat),
    "/v1/completions": Route(ask_completion, answers.write_completion, answers.stream_completion),
    "/v1/embeddings": Route(ask_embedding, None),
    "/v1/responses": Route(ask_response, answers.write_response),
}


class Simulator:
    """A model server without a model, an ASGI application.

    Attributes:
        settings: what it is like; may be replaced at any time, for what begins after.
        in_flight: how many requests it works on now.
        in_flight_peak: how many it worked on at the most.
        served: usual answers by model.
    """

    def __init__(self, settings: SimulatorSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.in_flight = 0
        self.in_flight_peak = 0
        self.served: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._clock = clock
        self._prose = Prose(settings.seed)
        self._orders = Orders()
        self._ready_at: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or go along with the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"The simulator speaks HTTP, not {scope['type']}.")
        try:
            await self._answer(scope, receive, send)
        except Answered as answered:
            await send_whole(send, answered.status, answered.body, extra=answered.extra)
        except Unacceptable as error:
            refusal = Answered(400, error.message, "BadRequestError", error.param)
            await send_whole(send, refusal.status, refusal.body)
        except Gone:
            return

    def load_again(self) -> None:
        """Behave as after a start: refuse everything for `loading_seconds` from now on."""
        self._ready_at = asyncio.get_running_loop().time() + self.settings.loading_seconds

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.load_again()
                await send({"type": "lifespan.startup.complete"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        route = _ROUTES.get(path)
        if path == "/metrics" and method == "GET":
            await send_whole(send, 200, self._metrics(), kind=_TEXT)
            return
        faults = self._read_headers(scope, is_open=path == "/health")
        self._refuse_while_loading()
        if route is None:
            await self._answer_small(path, method, send)
        elif method == "POST":
            await self._work(route, faults, receive, send)
        else:
            raise Answered(405, "Method Not Allowed", "MethodNotAllowed")

    async def _answer_small(self, path: str, method: str, send: Send) -> None:
        if path == "/health" and method == "GET":
            await send_whole(send, 200, b"{}")
        elif path == "/v1/models" and method == "GET":
            await send_whole(send, 200, self._models())
        else:
            raise Answered(404, "Not Found", "NotFoundError")

    def _read_headers(self, scope: Scope, *, is_open: bool) -> dict[str, str]:
        """Check the key, and return the fault headers by the name of the order's member."""
        faults: dict[str, str] = {}
        authorization = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name.startswith(HEADER_PREFIX):
                member = name[len(HEADER_PREFIX) :].decode("latin-1").replace("-", "_")
                faults[member] = value.decode("latin-1")
        key = self.settings.api_key
        if key is not None and not is_open:
            expected = b"Bearer " + key.encode()
            if not hmac.compare_digest(authorization, expected):
                raise Answered(401, "Unauthorized", "AuthenticationError")
        return faults

    def _refuse_while_loading(self) -> None:
        if not self.settings.loading_seconds:
            return
        if self._ready_at is None:
            self.load_again()
        ready_at = self._ready_at
        if ready_at is not None and asyncio.get_running_loop().time() < ready_at:
            raise Answered(503, "Loading model", "unavailable_error")

    async def _work(
        self, route: Route, faults: dict[str, str], receive: Receive, send: Send
    ) -> None:
        data = await read(receive)
        body = read_body(data)
        if body.model not in self.settings.models:
            message = f"The model `{body.model}` does not exist."
            raise Answered(404, message, "NotFoundError", "model")
        question = route.ask(body)
        self._take_slot()
        try:
            job = self._think(route, question, data, faults)
            if job.order is not None:
                await rest(job.order.delay_seconds, receive)
                _obey(job.order)
            await self._finish(job, receive, send)
            self.served[body.model] += 1
        finally:
            self.in_flight -= 1

    def _take_slot(self) -> None:
        bound = self.settings.in_flight_max
        if bound is not None and self.in_flight >= bound:
            message = f"The server works on {bound} requests already."
            raise Answered(self.settings.full_status, message, "OverloadedError")
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def _think(
        self, route: Route, question: Question, data: bytes, faults: dict[str, str]
    ) -> "_Job":
        digest = self._prose.digest(data)
        try:
            order = self._orders.find(faults, data, digest)
        except msgspec.MsgspecError as error:
            raise Unacceptable(f"The order of a fault is not acceptable: {error}.") from error
        answer = None
        if route.write is not None:
            created = CREATED if self._clock is None else int(self._clock.now())
            answer = think(
                self._prose, question, digest, created, tokens_max=self.settings.output_tokens
            )
        return _Job(route, question, data, answer, order)

    async def _finish(self, job: "_Job", receive: Receive, send: Send) -> None:
        settings, answer = self.settings, job.answer
        model = job.question.body.model or ""
        pace = settings.model_factors.get(model, 1.0)
        first, each = settings.latency_seconds * pace, settings.token_seconds * pace
        if answer is not None:
            self._tokens[model] += answer.output_tokens
            if job.question.body.stream and job.route.stream is not None:
                await rest(first, receive)
                await send_events(send, receive, job.route.stream(answer), each)
                return
            first += each * max(answer.tokens)
        await rest(first, receive)
        body = self._write(job)
        if job.order is not None and job.order.cut:
            await send_half(send, body)
        else:
            await send_whole(send, 200, body)

    def _write(self, job: "_Job") -> bytes:
        if job.order is not None and job.order.echo:
            return job.data
        if job.order is not None and job.order.reply is not None:
            return job.order.reply.encode()
        if job.route.write is None or job.answer is None:
            return answers.write_embeddings(job.question, self._prose)
        return job.route.write(job.answer)

    def _models(self) -> bytes:
        models = [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "tidegate"}
            for name in self.settings.models
        ]
        return json.dumps({"object": "list", "data": models}).encode()

    def _metrics(self) -> bytes:
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running {self.in_flight}",
            "# TYPE vllm:request_success_total counter",
        ]
        for model in self.settings.models:
            label = f"{{model_name={json.dumps(model)}}}"
            lines.append(f"vllm:request_success_total{label} {self.served[model]}")
        lines.append("# TYPE vllm:generation_tokens_total counter")
        for model in self.settings.models:
            label = f"{{model_name={json.dumps(model)}}}"
            lines.append(f"vllm:generation_tokens_total{label} {self._tokens[model]}")
        return ("\n".join(lines) + "\n").encode()


def build_simulator(settings: SimulatorSettings, clock: Clock | None = None) -> Simulator:
    """Return a simulated server. Without a clock, answers are the same to the last byte each time.

    Waiting uses the timers of the event loop alone, so it runs in virtual time as well.
    """
    return Simulator(settings, clock)


@dataclass(frozen=True, slots=True)
class _Job:
    """A question that is being worked on; `answer` is None where vectors are asked for."""

    route: Route
    question: Question
    data: bytes
    answer: Answer | None
    order: Order | None


def _obey(order: Order) -> None:
    if order.status == HTTPStatus.OK:
        return
    answered = Answered(order.status, "This fault was ordered.", "OrderedFault")
    if order.reply is not None:
        answered.body = order.reply.encode()
    if order.retry_after is not None:
        answered.extra.append((b"retry-after", order.retry_after.encode("latin-1", "replace")))
    raise answered
