"""`/v1/chat/completions`: whole replies and events."""

import json

import msgspec

from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.formats import logprobs
from tidegate.simulator.formats.prompted import Prompted, prompt_json
from tidegate.simulator.formats.texts import (
    DONE,
    FINGERPRINT,
    LAST_FINGERPRINT,
    Names,
    arguments_of,
    content,
    content_json,
    stop_reason_json,
    stream_usage_json,
    transfer_json,
    usage_json,
)

_DELTA = (
    'data: {"id":%s,"object":"chat.completion.chunk","created":%d,"model":%s,'
    '"choices":[{"index":%d,"delta":{%s},"logprobs":%s,"finish_reason":%s%s}]%s%s}\n\n'
)
_USAGE = (
    'data: {"id":%s,"object":"chat.completion.chunk","created":%d,"model":%s,'
    f'"choices":[],"usage":%s,"system_fingerprint":"{FINGERPRINT}"}}\n\n'
)
_WHOLE = (
    '{"id":%s,"object":"chat.completion","created":%d,"model":%s,"choices":[%s],'
    '"service_tier":null,"system_fingerprint":"%s","usage":%s,"prompt_logprobs":%s,'
    '"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":%s,'
    '"ec_transfer_params":null,"metrics":null}'
)
_CHOICE = (
    '{"index":%d,"message":{"role":"assistant","content":%s,"refusal":null,"annotations":null,'
    '"audio":null,"function_call":null,%s"reasoning":null},"logprobs":%s,'
    '"finish_reason":"%s","stop_reason":%s,"token_ids":null,"routed_experts":null}'
)
_NO_IDS = ',"token_ids":null'
_NO_PROMPT = ',"prompt_token_ids":null,"prompt_text":null'
_CREATED_TOKENS = ',"created_cache_tokens":0'


class ChatStyle(msgspec.Struct, frozen=True, kw_only=True):
    """Writes chats. `logprobs` is how many likely tokens are shown, or None for none at all.

    `prompt` is shown with `prompt_logprobs` likely tokens for each of its own, if it is given.
    """

    names: Names
    logprobs: int | None = None
    with_usage: bool = False
    with_usage_always: bool = False
    is_prefill: bool = False
    echo: str = ""
    prompt: Prompted | None = None
    prompt_logprobs: int = 0

    def around_word(self, choice: Choice) -> tuple[bytes, bytes] | None:
        """Return what stands around a word in its event."""
        if self.logprobs is not None or self.with_usage_always:
            return None
        before, _, after = self._event(choice, '"content":"\0"', "null").partition("\0")
        return before.encode(), after.encode()

    def first(self, choice: Choice) -> bytes:
        """Return the event of the role, and of what is echoed."""
        role = '"role":"assistant","content":""'
        opening = self._event(choice, role, "null", "", 0, after=_NO_PROMPT)
        if self.echo:
            opening += self._event(choice, f'"content":{json.dumps(self.echo)}', "null", "", 0)
        return opening.encode()

    def delta(self, choice: Choice, start: int, stop: int) -> bytes:
        """Return an event for each of these tokens."""
        return "".join(
            [
                self._event(
                    choice,
                    self._said(choice, place),
                    "null",
                    _NO_IDS,
                    place + 1,
                    probabilities=self._logprobs(choice, place),
                )
                for place in range(start, stop)
            ]
        ).encode()

    def last(self, choice: Choice, start: int) -> bytes:
        """Return the events of the last tokens; the very last has the reason for the end."""
        end = choice.plan.total - 1
        ending = f',"stop_reason":{stop_reason_json(choice)}{_NO_IDS}'
        event = self._event(
            choice,
            self._said(choice, end),
            f'"{choice.plan.finish}"',
            ending,
            end + 1,
            probabilities=self._logprobs(choice, end),
            after="" if self.with_usage else LAST_FINGERPRINT,
        )
        return self.delta(choice, start, end) + event.encode()

    def end(self, generation: Generation) -> bytes:
        """Return the usage, if it is wanted, and the end."""
        if not self.with_usage:
            return DONE
        usage = stream_usage_json(generation, extra=_CREATED_TOKENS)
        return (_USAGE % (*self.names, usage)).encode() + DONE

    def whole(self, generation: Generation) -> bytes:
        """Return a whole chat completion."""
        engine_id = self.names.id[1:-1]
        return (
            _WHOLE
            % (
                *self.names,
                ",".join([self._choice(choice) for choice in generation.choices]),
                FINGERPRINT,
                usage_json(generation, created=0),
                "null" if self.prompt is None else prompt_json(self.prompt, self.prompt_logprobs),
                transfer_json(generation, is_prefill=self.is_prefill, engine_id=engine_id),
            )
        ).encode()

    def _event(  # noqa: PLR0913 - what an event consists of
        self,
        choice: Choice,
        delta: str,
        finish: str,
        ending: str = _NO_IDS,
        tokens_so_far: int = 0,
        *,
        probabilities: str = "null",
        after: str = "",
    ) -> str:
        usage = ""
        if self.with_usage_always:
            shown = stream_usage_json(choice.generation, tokens_so_far, extra=_CREATED_TOKENS)
            usage = f',"usage":{shown}'
        said = (choice.index, delta, probabilities, finish, ending)
        return _DELTA % (*self.names, *said, usage, after)

    def _logprobs(self, choice: Choice, place: int) -> str:
        if self.logprobs is None:
            return "null"
        return logprobs.chat_json(choice, place, place + 1, self.logprobs)

    def _said(self, choice: Choice, place: int) -> str:
        """Return the members of a delta: some text, or a part of a call."""
        plan = choice.plan
        if not plan.calls:
            return f'"content":{content_json(choice, place, place + 1)}'
        index = plan.marks[place]
        call = plan.calls[index]
        if not place or plan.marks[place - 1] != index:
            function = {"name": call.name, "arguments": ""}
            entry = {"index": index, "id": call.id, "type": "function", "function": function}
        else:
            entry = {"index": index, "function": {"arguments": content(choice, place, place + 1)}}
        return f'"tool_calls":[{json.dumps(entry)}]'

    def _choice(self, choice: Choice) -> str:
        plan = choice.plan
        calls, text = "", "null"
        if plan.calls:
            told_calls = json.dumps(
                [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": arguments_of(choice, index)},
                    }
                    for index, call in enumerate(plan.calls)
                    if index in plan.marks[: plan.total]
                ]
            )
            calls = f'"tool_calls":{told_calls},'
        elif self.echo:
            text = json.dumps(self.echo + content(choice, 0, plan.total))
        else:
            text = content_json(choice, 0, plan.total)
        shown = "null"
        if self.logprobs is not None:
            shown = logprobs.chat_json(choice, 0, plan.total, self.logprobs)
        reason = stop_reason_json(choice)
        return _CHOICE % (choice.index, text, calls, shown, plan.finish, reason)
