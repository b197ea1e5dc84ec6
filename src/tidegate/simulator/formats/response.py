"""`/v1/responses`: whole replies and events, each under its name and number."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.answers.plans import ToolCall
from tidegate.simulator.formats.texts import Names, arguments_of, content

Item = dict[str, object]
# What vLLM repeats or could show, and the simulator has no values for.
_NULLS = (
    *("max_tool_calls", "prompt", "reasoning", "top_logprobs", "user", "kv_transfer_params"),
    *("ec_transfer_params", "input_messages", "output_messages"),
)


@dataclass(slots=True, kw_only=True)
class ResponseStyle:
    """Writes responses. `asked` holds what the request said and the response repeats."""

    names: Names
    number: int
    asked: Mapping[str, object]
    _serial: int = 0

    def around_word(self, choice: Choice) -> tuple[bytes, bytes] | None:
        """Return None: every event has a number of its own."""
        del choice
        return None

    def first(self, choice: Choice) -> bytes:
        """Return the events before the first token."""
        response = self._response(None, "in_progress")
        events = self._event("response.created", response=response)
        events += self._event("response.in_progress", response=response)
        if not choice.plan.calls:
            item = self._message("", "in_progress")
            item["content"] = []
            events += self._event("response.output_item.added", output_index=0, item=item)
            events += self._event(
                "response.content_part.added",
                item_id=self._message_id,
                output_index=0,
                content_index=0,
                part={**_part(""), "logprobs": []},
            )
        return events

    def delta(self, choice: Choice, start: int, stop: int) -> bytes:
        """Return the events of these tokens."""
        return b"".join([self._token(choice, place) for place in range(start, stop)])

    def last(self, choice: Choice, start: int) -> bytes:
        """Return the events of the last tokens, and those that close the item."""
        plan = choice.plan
        events = self.delta(choice, start, plan.total)
        if plan.calls:
            return events + self._call_done(choice, plan.marks[plan.total - 1])
        text = content(choice, 0, plan.total)
        where = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        events += self._event("response.output_text.done", **where, text=text, logprobs=[])
        events += self._event("response.content_part.done", **where, part=_part(text))
        return events + self._event(
            "response.output_item.done", output_index=0, item=self._message(text, "completed")
        )

    def end(self, generation: Generation) -> bytes:
        """Return the whole response once more, as the last event."""
        # It is named so as well where the response is incomplete.
        return self._event("response.completed", response=self._finished(generation))

    def whole(self, generation: Generation) -> bytes:
        """Return a whole response."""
        return json.dumps(self._finished(generation), separators=(",", ":")).encode()

    @property
    def _message_id(self) -> str:
        return f"msg_{self.number:032x}"

    def _event(self, kind: str, **members: object) -> bytes:
        data = {"type": kind, "sequence_number": self._serial, **members}
        self._serial += 1
        return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()

    def _token(self, choice: Choice, place: int) -> bytes:
        plan = choice.plan
        if not plan.calls:
            return self._event(
                "response.output_text.delta",
                item_id=self._message_id,
                output_index=0,
                content_index=0,
                delta=content(choice, place, place + 1),
                logprobs=[],
            )
        index = plan.marks[place]
        call = plan.calls[index]
        if place and plan.marks[place - 1] == index:
            return self._event(
                "response.function_call_arguments.delta",
                item_id=_item_id(call),
                output_index=index,
                delta=content(choice, place, place + 1),
            )
        events = self._call_done(choice, index - 1) if place else b""
        return events + self._event(
            "response.output_item.added", output_index=index, item=_call(call, "in_progress", "")
        )

    def _call_done(self, choice: Choice, index: int) -> bytes:
        call = choice.plan.calls[index]
        arguments = arguments_of(choice, index)
        events = self._event(
            "response.function_call_arguments.done",
            item_id=_item_id(call),
            output_index=index,
            name=call.name,
            arguments=arguments,
        )
        return events + self._event(
            "response.output_item.done",
            output_index=index,
            item=_call(call, "completed", arguments),
        )

    def _finished(self, generation: Generation) -> Item:
        plan = generation.choices[0].plan
        is_cut = plan.finish == "length"
        return self._response(generation, "incomplete" if is_cut else "completed")

    def _response(self, generation: Generation | None, status: str) -> Item:
        names = self.names
        is_cut = status == "incomplete"
        return {
            "id": json.loads(names.id),
            "created_at": names.created,
            "object": "response",
            "model": json.loads(names.model),
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [] if generation is None else self._output(generation.choices[0]),
            "usage": None if generation is None else _usage(generation),
            "background": False,
            "service_tier": "auto",
            "truncation": "disabled",
            "previous_response_id": None,
            **dict.fromkeys(_NULLS),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            **self.asked,
        }

    def _output(self, choice: Choice) -> list[Item]:
        plan = choice.plan
        if not plan.calls:
            return [self._message(content(choice, 0, plan.total), "completed")]
        return [
            _call(call, "completed", arguments_of(choice, index))
            for index, call in enumerate(plan.calls)
            if index in plan.marks[: plan.total]
        ]

    def _message(self, text: str, status: str) -> Item:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_part(text)],
            "phase": None,
        }


def _part(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}


def _call(call: ToolCall, status: str, arguments: str) -> Item:
    return {
        "id": _item_id(call),
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
        "status": status,
    }


def _item_id(call: ToolCall) -> str:
    return f"fc_{call.id.rpartition('-')[2]}"


def _usage(generation: Generation) -> Item:
    prompt, output = generation.prompt_tokens, generation.output_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": generation.cached_tokens,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt + output,
    }
