"""From the body of a request to the answer that it will get: everything is decided at arrival."""

import json
from array import array
from collections.abc import Callable
from hashlib import blake2b
from itertools import product

import msgspec

from tidegate.simulator.answers import plans
from tidegate.simulator.answers.echo import chat_echo, echoes, likely, likely_of_prompts, texts_of
from tidegate.simulator.answers.generation import Choice, Generation, Runner
from tidegate.simulator.answers.plans import Limits, Plan
from tidegate.simulator.answers.seeded import digest
from tidegate.simulator.engine.sequence import Request
from tidegate.simulator.faults.per_request import RequestFault
from tidegate.simulator.formats.chat import ChatStyle
from tidegate.simulator.formats.completion import CompletionStyle
from tidegate.simulator.formats.embedding import EmbeddingStyle
from tidegate.simulator.formats.prompted import prompted
from tidegate.simulator.formats.response import ResponseStyle
from tidegate.simulator.formats.texts import Names
from tidegate.simulator.requests import bodies, checks, prompts
from tidegate.simulator.requests.bodies import Body, ChatBody, KvTransfer
from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.server.models import Models
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.structured.constraints import Shape
from tidegate.simulator.structured.shapes import NoCall, response_shape, shape_of
from tidegate.simulator.web.call import Call

COMPLETION_TOKENS = 16
DIMENSIONS = 384
DIMENSIONS_MAX = 4_096
REQUEST_ID_CHARACTERS_MAX = 256


class ResponseBuilder:
    """Makes answers for one server. `created` returns the time that answers carry."""

    def __init__(
        self,
        settings: SimulatorSettings,
        models: Models,
        runner: Runner,
        created: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._runner = runner
        self._created = created
        self._models = models
        self._model_json = {name: json.dumps(name) for name in settings.models}
        self._seed_key = str(settings.seed).encode()[:64]

    def chat(self, call: Call, order: RequestFault | None) -> Generation:
        """Return the answer to a chat."""
        body = bodies.read(bodies.decode_chat, call.body)
        model = self._models.name(body.model)
        self._check(body)
        if body.messages is None:
            raise Refused("Field required: messages", kind="Bad Request", param="body.messages")
        checks.check_chat(body)
        text = prompts.chat_text(
            body.messages, preamble=_tools_text(body), opens=body.add_generation_prompt
        )
        prompt = prompts.text_tokens(text, self._settings.engine.max_model_len)
        asked = body.max_completion_tokens
        asked = body.max_tokens if asked is None else asked
        options = body.stream_options
        top = body.prompt_logprobs
        if top is None and body.echo:
            top = body.top_logprobs or 0
        style = ChatStyle(
            names=self._names("chatcmpl-", call, body.request_id, model),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            with_usage=options is not None and options.include_usage,
            with_usage_always=options is not None and options.continuous_usage_stats,
            is_prefill=_is_prefill(body.kv_transfer_params),
            echo=chat_echo(body),
            prompt=None if top is None else prompted(prompt, text),
            prompt_logprobs=top or 0,
        )
        choices = self._choices(body, [prompt], asked, shape_of(body), reads_cache=top is None)
        shown = likely(choices, style.logprobs) + likely_of_prompts([prompt], top)
        checks.check_size(shown, len(style.echo) * len(choices))
        found = Generation(
            call, style, choices, self._runner, is_streamed=bool(body.stream), order=order
        )
        if body.tools and body.tool_choice != "none":
            found.parses = "chat_completions"
        return found

    def completion(self, call: Call, order: RequestFault | None) -> Generation:
        """Return the answer to one or several prompts."""
        body = bodies.read(bodies.decode_completion, call.body)
        model = self._models.name(body.model)
        self._check(body)
        checks.check_completion(body)
        length_max = self._settings.engine.max_model_len
        found = prompts.prompts_of(body.prompt, length_max, "prompt")
        asked = body.max_tokens if body.max_tokens is not None else COMPLETION_TOKENS
        is_echo_only = bool(body.echo) and asked == 0
        top = body.prompt_logprobs
        if top is None and body.echo:
            top = body.logprobs
        given = texts_of(body.prompt, found)
        options = body.stream_options
        style = CompletionStyle(
            names=self._names("cmpl-", call, body.request_id, model),
            logprobs=body.logprobs,
            with_usage=options is not None and options.include_usage,
            with_usage_always=options is not None and options.continuous_usage_stats,
            is_prefill=_is_prefill(body.kv_transfer_params),
            echoes=echoes(given, found) if body.echo else (),
            choices_each=body.n or 1,
            prompts=() if top is None else tuple(map(prompted, found, given)),
            prompt_logprobs=top,
            is_echo_only=is_echo_only,
        )
        choices = self._choices(
            body, found, 1 if is_echo_only else asked, shape_of(body), reads_cache=top is None
        )
        shown = likely(choices, body.logprobs)
        shown += (body.n or 1) * likely_of_prompts(found, top)
        checks.check_size(shown, (body.n or 1) * sum(map(len, style.echoes)))
        return Generation(
            call, style, choices, self._runner, is_streamed=bool(body.stream), order=order
        )

    def response(self, call: Call, order: RequestFault | None) -> Generation:
        """Return a response."""
        body = bodies.read(bodies.decode_response, call.body)
        model = self._models.name(body.model)
        if body.input is None:
            raise Refused("Field required: input", kind="Bad Request", param="body.input")
        if body.previous_response_id is not None:
            raise Refused(
                f"Response with id '{body.previous_response_id}' not found.",
                status=404,
                kind="NotFoundError",
                param="response_id",
            )
        shared = Body(
            model=model,
            temperature=body.temperature,
            top_p=body.top_p,
            priority=body.priority,
            cache_salt=body.cache_salt,
        )
        self._check(shared)
        repeated = bodies.read(bodies.decode_repeated, call.body)
        text = prompts.response_text(
            body.input, body.instructions, preamble=_preamble(body.tool_choice, repeated.tools)
        )
        length_max = self._settings.engine.max_model_len
        prompt = prompts.text_tokens(text, length_max)
        # What is asked for beyond the model's length is cut here, and refused elsewhere.
        room = max(1, length_max - len(prompt))
        asked = room if body.max_output_tokens is None else min(body.max_output_tokens, room)
        names = self._names("resp_", call, body.request_id, model)
        style = ResponseStyle(
            names=names,
            number=digest(names.id),
            asked={
                "instructions": body.instructions,
                "max_output_tokens": asked,
                "metadata": _decoded(body.metadata),
                "parallel_tool_calls": body.parallel_tool_calls is not False,
                "temperature": 1.0 if body.temperature is None else body.temperature,
                "top_p": 1.0 if body.top_p is None else body.top_p,
                "text": _decoded(repeated.text),
                "tool_choice": _decoded(repeated.tool_choice) or ("auto" if body.tools else "none"),
                "tools": _decoded(repeated.tools) or [],
            },
        )
        choices = self._choices(shared, [prompt], asked, response_shape(body))
        found = Generation(
            call, style, choices, self._runner, is_streamed=bool(body.stream), order=order
        )
        if body.tools and body.tool_choice != "none":
            found.parses = "responses"
        return found

    def embedding(self, call: Call, order: RequestFault | None) -> Generation:
        """Return vectors: the engine prefills each input and gives one token."""
        body = bodies.read(bodies.decode_embedding, call.body)
        model = self._models.name(body.model)
        checks.check_priority(body.priority, self._settings.engine)
        if body.dimensions is not None and not 1 <= body.dimensions <= DIMENSIONS_MAX:
            raise Refused(f"dimensions must be from 1 to {DIMENSIONS_MAX}.", param="dimensions")
        if body.encoding_format not in {None, "float", "base64"}:
            raise Refused("encoding_format must be float or base64.", param="encoding_format")
        length_max = self._settings.engine.max_model_len - 1
        if body.messages is not None:
            text = prompts.chat_text(body.messages, opens=False)
            found = [prompts.text_tokens(text, length_max)]
        else:
            found = prompts.prompts_of(body.input, length_max, "input")
        style = EmbeddingStyle(
            names=self._names("embd-", call, body.request_id, model),
            seed=self._settings.seed,
            dimensions=body.dimensions or DIMENSIONS,
            is_base64=body.encoding_format == "base64",
        )
        shared = Body(model=model, priority=body.priority, ignore_eos=True)
        choices = self._choices(shared, found, 1, None)
        return Generation(call, style, choices, self._runner, is_streamed=False, order=order)

    # The parts of an answer

    def _check(self, body: Body) -> None:
        if body.use_beam_search:
            raise Refused("Beam search is not supported.", param="use_beam_search")
        checks.check_sampling(body)
        checks.check_priority(body.priority, self._settings.engine)

    def _names(self, prefix: str, call: Call, asked: str | None, model: str) -> Names:
        """Return the names of an answer: its id is the request's, or follows from its body."""
        model_json = self._model_json.get(model) or json.dumps(model)
        given = call.headers.get(b"x-request-id", b"").decode("latin-1") or asked
        if not given:
            hashed = blake2b(call.body, digest_size=16, key=self._seed_key).hexdigest()
            return Names(f'"{prefix}{hashed}"', self._created(), model_json)
        if len(given) > REQUEST_ID_CHARACTERS_MAX:
            raise Refused(
                f"A request id has at most {REQUEST_ID_CHARACTERS_MAX} characters.",
                param="request_id",
            )
        return Names(json.dumps(prefix + given), self._created(), model_json)

    def _choices(
        self,
        body: Body,
        found: list["array[int]"],
        asked: int | None,
        shape: Shape | None,
        *,
        reads_cache: bool = True,
    ) -> list[Choice]:
        """Return `n` choices for each prompt, with everything that they will say."""
        each = body.n or 1
        if each * len(found) > checks.CHOICES_MAX:
            raise Refused(f"A request may ask for {checks.CHOICES_MAX} answers at most.", param="n")
        limits = [self._limits(body, len(prompt), asked) for prompt in found]
        return [
            self._choice(body, index, found[place], limits[place], shape, reads_cache=reads_cache)
            for index, (place, _) in enumerate(product(range(len(found)), range(each)))
        ]

    def _limits(self, body: Body, prompt_tokens: int, asked: int | None) -> Limits:
        length_max = self._settings.engine.max_model_len
        least = body.min_tokens or 0
        return Limits(
            tokens_max=checks.output_bound(asked, least, prompt_tokens, length_max),
            tokens_min=least,
            ignore_eos=body.ignore_eos,
            stops=checks.stops_of(body),
            stop_ids=frozenset(body.stop_token_ids or ()),
            keeps_stop=body.include_stop_str_in_output,
        )

    def _choice(
        self,
        body: Body,
        index: int,
        prompt: "array[int]",
        limits: Limits,
        shape: Shape | None,
        *,
        reads_cache: bool,
    ) -> Choice:
        settings = self._settings
        seed_key = self._seed_key
        if body.seed is not None:
            seed_key = f"{settings.seed}:{body.seed}".encode()[:64]
        hashed = blake2b(prompt.tobytes(), digest_size=16, key=seed_key)
        key = f"{hashed.hexdigest()}:{index}"
        plan = self._plan(key, limits, shape)
        transfer = body.kv_transfer_params
        is_remote = transfer is not None and transfer.do_remote_prefill
        return Choice(
            index,
            plan,
            Request(
                key=key,
                prompt=prompt,
                output_tokens=plan.total,
                priority=body.priority,
                lora=self._models.lora(body.model),
                salt=body.cache_salt or "",
                transfer_ps=settings.transfer_ps(len(prompt)) if is_remote else None,
                script=plan.script,
                reads_cache=reads_cache,
            ),
        )

    def _plan(self, key: str, limits: Limits, shape: Shape | None) -> Plan:
        seed = self._settings.seed
        number = int(key[:16], 16) if key.endswith(":0") else digest(key)
        if shape is not None:
            try:
                return shape(number, limits)
            except NoCall:
                pass
        return plans.free(
            limits, seed=seed, key=key, number=number, median=self._settings.output_tokens
        )


def _decoded(data: msgspec.Raw) -> object:
    return msgspec.json.decode(data) if data else None


def _tools_text(body: ChatBody) -> str:
    """Return the tools as the chat template renders them, before the messages."""
    if not body.tools or body.tool_choice == "none":
        return ""
    shown = [
        f"{tool.function.name}{bytes(tool.function.parameters).decode()}" for tool in body.tools
    ]
    return f"<|tools|> {''.join(shown)} <|end|> "


def _preamble(choice: object, tools: msgspec.Raw) -> str:
    """Return the tools of a response as the chat template renders them."""
    if choice == "none" or not tools or bytes(tools) in {b"null", b"[]"}:
        return ""
    return f"<|tools|> {bytes(tools).decode()} <|end|> "


def _is_prefill(transfer: KvTransfer | None) -> bool:
    return transfer is not None and transfer.do_remote_decode
