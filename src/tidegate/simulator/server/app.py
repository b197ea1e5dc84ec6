"""The simulated server's application: which path does what, who is let in, and what goes wrong."""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
import orjson

from tidegate.runtime.clock import Clock
from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.answers.response_builder import ResponseBuilder
from tidegate.simulator.engine import tokens
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.faults.per_request import HEADER_PREFIX, RequestFault, RequestFaults
from tidegate.simulator.faults.schedule import FaultSchedule, plan_from
from tidegate.simulator.formats.texts import VERSION
from tidegate.simulator.kv_events.config import KvEventsConfig
from tidegate.simulator.kv_events.feed import Batch, EventFeed
from tidegate.simulator.metrics.cache import cache_settings
from tidegate.simulator.metrics.fake import Fakes
from tidegate.simulator.metrics.server import ServerMetrics
from tidegate.simulator.metrics.vllm import EngineMetrics
from tidegate.simulator.requests import bodies, prompts
from tidegate.simulator.requests.refusal import Refused, by_status, nothing_here
from tidegate.simulator.server.driver import Driver
from tidegate.simulator.server.models import Models
from tidegate.simulator.server.operations import Operations
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.call import Call
from tidegate.simulator.web.replies import TEXT

CREATED = 1_700_000_000
_VERSION_BODY = orjson.dumps({"version": VERSION})
_OPEN_PATHS = frozenset({"/health", "/ping", "/load", "/version", "/metrics"})

Handler = Callable[[Call], None]
Make = Callable[[Call, RequestFault | None], Generation]


class Simulator:
    """A model server without a model. `handle` takes calls; `driver.run` must run beside.

    Attributes:
        settings: what it is like.
        driver: lives the engine's time.
        models: that can be asked for.
        fakes: values that the metrics show in place of the measured ones.
        feed: makes events of the prefix cache, where somebody takes them.
        metrics: what the engine did.
        server_metrics: what the server around it did.
        in_flight: how many requests it works on now.
        in_flight_peak: how many it worked on at the most.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        clock: Callable[[], float],
        wall: Clock | None = None,
        *,
        publish: Callable[[Batch], None] | None = None,
        kv_sources: KvEventsConfig | None = None,
    ) -> None:
        """Set the server up; `clock` is the event loop's.

        Without a wall clock, answers are always as old as `CREATED`, and the same to the last byte
        each time. `publish` takes the events of the prefix cache, `kv_sources` says where they go.
        """
        self.settings = settings
        self.in_flight = 0
        self.in_flight_peak = 0
        size = settings.engine
        now = clock if wall is None else wall.now
        self.fakes = Fakes(settings.fakes, clock)
        self.models = Models(settings.models, settings.adapters or (), size.max_model_len)
        self.metrics = EngineMetrics(
            settings.models[0],
            size.max_model_len,
            cache_settings(size),
            fakes=self.fakes,
            adapters_max=None if settings.adapters is None else size.max_loras,
            now=now,
        )
        self.server_metrics = ServerMetrics(settings.models[0], clock, now())
        ears: tuple[Listener, ...] = (self.metrics,)
        self.feed: EventFeed | None = None
        if publish is not None:
            self.feed = EventFeed(size.block_size, publish, now, self.models.number)
            ears += (self.feed,)
        self.driver = Driver(size, settings.cost, seed=settings.seed, ears=ears, clock=clock)
        self.schedule = FaultSchedule(settings.faults, clock)
        self._clock = clock
        self._ready_at = clock() + settings.startup_seconds
        self._orders = RequestFaults()
        self._maker = ResponseBuilder(
            settings, self.models, self, lambda: CREATED if wall is None else int(wall.now())
        )
        self._operations = Operations(self, kv_sources)
        self._routes = self._all_routes()
        self.server_metrics.web.know(self._routes)
        self._count = self.server_metrics.web.answered

    def _all_routes(self) -> Mapping[str, Mapping[str, Handler]]:
        maker = self._maker
        return {
            "/v1/chat/completions": {"POST": lambda call: self._work(call, maker.chat)},
            "/v1/completions": {"POST": lambda call: self._work(call, maker.completion)},
            "/v1/embeddings": {"POST": lambda call: self._work(call, maker.embedding)},
            "/v1/responses": {"POST": lambda call: self._work(call, maker.response)},
            "/v1/models": {"GET": self._list_models},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/health": {"GET": _pong},
            "/ping": {"GET": _pong, "POST": _pong},
            "/version": {"GET": lambda call: call.answer(200, _VERSION_BODY)},
            "/load": {"GET": self._tell_load},
            "/metrics": {"GET": self._tell_metrics},
            "/admin/faults": {
                "GET": lambda call: call.answer(200, self.schedule.shown()),
                "POST": self._set_faults,
            },
            **self._operations.routes(),
        }

    # One call

    def handle(self, call: Call) -> None:
        """Answer a call, now or later."""
        call.began = self._clock()
        call.ended = self._count
        name = call.headers.get(b"x-request-id")
        if name is not None:
            call.reply_headers = b"x-request-id: " + name + b"\r\n"
        try:
            self._route(call)
        except Refused as refusal:
            call.answer(refusal.status, refusal.body, headers=refusal.headers)
        except Exception as error:  # noqa: BLE001 - the edge: a bug in one answer ends that answer
            context = {"message": "A request could not be answered.", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            failed = Refused("Internal server error", status=500, kind="InternalServerError")
            call.answer(500, failed.body)

    def _route(self, call: Call) -> None:
        methods = self._routes.get(call.path)
        if call.path not in _OPEN_PATHS:
            self._check_key(call)
        if call.path != "/metrics" and self._clock() < self._ready_at:
            raise by_status(HTTPStatus.SERVICE_UNAVAILABLE, "The model is loading.")
        if methods is None:
            raise nothing_here(HTTPStatus.NOT_FOUND)
        handler = methods.get(call.method)
        if handler is None:
            allow = b"allow: " + ", ".join(methods).encode("ascii") + b"\r\n"
            raise nothing_here(HTTPStatus.METHOD_NOT_ALLOWED, headers=allow)
        handler(call)

    def _check_key(self, call: Call) -> None:
        if not self.settings.api_keys:
            return
        scheme, _, key = call.headers.get(b"authorization", b"").partition(b" ")
        known = [
            hmac.compare_digest(key, each.encode("utf-8", "surrogateescape"))
            for each in self.settings.api_keys
        ]
        if scheme.lower() != b"bearer" or not any(known):
            # vLLM's middleware has no envelope here.
            refusal = Refused("Unauthorized", status=401)
            refusal.body = orjson.dumps({"error": "Unauthorized"})
            raise refusal

    # Answers of the engine

    def _work(self, call: Call, make: Make) -> None:
        order = self._order_of(call)
        generation = make(call, order)
        self._admit(generation)
        wait = self.settings.latency_seconds + (order.delay_seconds if order is not None else 0.0)
        if wait > 0 or (order is not None and order.hang):
            waiting = _Waiting(self, generation, order)
            call.work = waiting
            if order is None or not order.hang:
                waiting.timer = asyncio.get_running_loop().call_later(wait, waiting.over)
        else:
            self.begin(generation, order)

    def begin(self, generation: Generation, order: RequestFault | None) -> None:
        """Let an answer begin, or the fault that was ordered in its place."""
        if order is None or not _obey(generation.call, order):
            generation.begin()
        else:
            generation.call.work = None
            self.ended(generation)

    def _order_of(self, call: Call) -> RequestFault | None:
        named = {}
        for name in call.headers:
            if name.startswith(HEADER_PREFIX):
                member = name[len(HEADER_PREFIX) :].decode("latin-1").replace("-", "_")
                named[member] = call.headers[name].decode("latin-1")
        try:
            order = self._orders.find(named, call.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"The order of a fault is not acceptable: {error}") from error
        return order if order is not None else self.schedule.draw()

    def _admit(self, generation: Generation) -> None:
        """Count a request in, where it has room."""
        settings = self.settings
        if settings.in_flight_max is not None and self.in_flight >= settings.in_flight_max:
            raise Refused(
                f"The server works on {settings.in_flight_max} requests already.",
                status=429,
                kind="Too Many Requests",
            )
        bound = settings.queued_requests_max
        if bound is not None and self.driver.unfinished + len(generation.choices) > bound:
            self.metrics.rejections["max_num_queued_reqs"] += 1
            raise by_status(
                HTTPStatus.SERVICE_UNAVAILABLE, "The server is busy. Please try again later."
            )
        bound = settings.queued_tokens_max
        if bound is not None and self.driver.queued_tokens >= bound:
            self.metrics.rejections["max_num_queued_tokens"] += 1
            raise by_status(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server has a backlog of prompt tokens. Please try again later.",
            )
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def submit(self, choice: Choice) -> Sequence:
        """Hand a choice to the engine."""
        return self.driver.submit(choice)

    def withdraw(self, choice: Choice) -> None:
        """Take a choice out of the engine."""
        self.driver.withdraw(choice)
        if self.feed is not None:
            self.feed.flush()  # No later step may report what it has left behind.

    def ended(self, generation: Generation) -> None:
        """Count a request out."""
        self.in_flight -= 1
        count = len(generation.choices)
        if generation.parses:
            self.server_metrics.parsed(generation)
        for choice in generation.choices:
            if choice.is_complete:
                finish = choice.plan.finish
                reason = finish if finish in {"length", "abort"} else "stop"
                self.metrics.request_ended(reason, choice.plan.limit, count)

    # Everything else

    def _list_models(self, call: Call) -> None:
        call.answer(200, orjson.dumps({"object": "list", "data": self.models.cards(CREATED)}))

    def _tokenize(self, call: Call) -> None:
        body = bodies.read(bodies.decode_tokenize, call.body)
        self.models.name(body.model)
        length = self.settings.engine.max_model_len
        if body.messages is not None:
            text = prompts.chat_text(body.messages, opens=body.add_generation_prompt)
        elif body.prompt is not None:
            text = body.prompt
        else:
            raise Refused("Field required: prompt", kind="Bad Request", param="body.prompt")
        found = prompts.text_tokens(text, length) if text else []
        shown = {
            "count": len(found),
            "max_model_len": length,
            "tokens": list(found),
            "token_strs": tokens.prompt_pieces(text) if body.return_token_strs else None,
        }
        call.answer(200, orjson.dumps(shown))

    def _detokenize(self, call: Call) -> None:
        body = bodies.read(bodies.decode_detokenize, call.body)
        self.models.name(body.model)
        wrong = next((token for token in body.tokens if token < 0), None)
        if wrong is not None:
            raise Refused(f"Token id {wrong} is out of vocabulary", param="tokens")
        call.answer(200, orjson.dumps({"prompt": tokens.detokenize(body.tokens)}))

    def _tell_load(self, call: Call) -> None:
        call.answer(200, orjson.dumps({"server_load": self.in_flight}))

    def _tell_metrics(self, call: Call) -> None:
        shown = self.metrics.text(self.driver.engine, self.driver.sequences())
        shown += self.server_metrics.text(is_fake=self.fakes.shown is not None)
        call.answer(200, shown, kind=TEXT)

    def _set_faults(self, call: Call) -> None:
        try:
            plan = plan_from(call.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"These faults are not acceptable: {error}") from error
        self.schedule.replace(plan)
        call.answer(200, self.schedule.shown())


@dataclass(slots=True, eq=False)
class _Waiting:
    """An answer that does not begin yet, or never."""

    simulator: Simulator
    generation: Generation
    order: RequestFault | None
    timer: asyncio.TimerHandle | None = None

    def over(self) -> None:
        """Begin."""
        self.simulator.begin(self.generation, self.order)

    def gone(self) -> None:
        """Give up: nobody waits for it any more."""
        if self.timer is not None:
            self.timer.cancel()
        self.simulator.ended(self.generation)

    def flowing(self) -> None:
        """Nothing was written yet."""


def _obey(call: Call, order: RequestFault) -> bool:
    """Answer as it was ordered; False where the usual answer goes on."""
    if order.status != HTTPStatus.OK:
        refusal = Refused("This fault was ordered.", status=order.status, kind="OrderedFault")
        body = refusal.body if order.reply is None else order.reply.encode()
        headers = b""
        if order.retry_after is not None:
            value = "".join(order.retry_after.splitlines()).encode("latin-1", "replace")
            headers = b"retry-after: " + value + b"\r\n"
        call.answer(order.status, body, headers=headers)
    elif order.echo:
        call.answer(200, call.body)
    elif order.reply is not None and order.cut:
        call.half(order.reply.encode())
    elif order.reply is not None:
        call.answer(200, order.reply.encode())
    else:
        return False
    return True


def _pong(call: Call) -> None:
    call.answer(200, b"")
