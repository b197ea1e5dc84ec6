"""`/v1/completions`: whole replies and events."""

import json

import msgspec

from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.engine.tokens import WORD_CHARACTERS
from tidegate.simulator.formats.logprobs import Rows
from tidegate.simulator.formats.prompted import Prompted, prompt_json
from tidegate.simulator.formats.texts import (
    DONE,
    FINGERPRINT,
    LAST_FINGERPRINT,
    Names,
    content,
    content_json,
    stop_reason_json,
    stream_usage_json,
    transfer_json,
    usage_json,
)

_EVENT = (
    'data: {"id":%s,"object":"text_completion","created":%d,"model":%s,'
    '"choices":[{"index":%d,"text":%s,"logprobs":%s,"finish_reason":%s,"stop_reason":%s,'
    '"prompt_token_ids":null,"token_ids":null}]%s%s}\n\n'
)
_USAGE = (
    'data: {"id":%s,"object":"text_completion","created":%d,"model":%s,"choices":[],"usage":%s'
    f',"system_fingerprint":"{FINGERPRINT}"}}\n\n'
)
_WHOLE = (
    '{"id":%s,"object":"text_completion","created":%d,"model":%s,"choices":[%s],'
    '"service_tier":null,"system_fingerprint":"%s","usage":%s,"kv_transfer_params":%s,'
    '"ec_transfer_params":null,"metrics":null}'
)
_CHOICE = (
    '{"index":%d,"text":%s,"logprobs":%s,"finish_reason":"%s","stop_reason":%s,"token_ids":null,'
    '"prompt_logprobs":%s,"prompt_token_ids":null,"routed_experts":null}'
)


class CompletionStyle(msgspec.Struct, frozen=True, kw_only=True):
    """Writes completions. `echoes` holds, for each prompt, the text that comes before the answer.

    `choices_each` is how many choices there are for each prompt. `prompts` are shown with
    `prompt_logprobs` likely tokens for each of theirs, where that is a number. With `is_echo_only`
    nothing of the answer is shown but its end.
    """

    names: Names
    logprobs: int | None = None
    with_usage: bool = False
    with_usage_always: bool = False
    is_prefill: bool = False
    echoes: tuple[str, ...] = ()
    choices_each: int = 1
    prompts: tuple[Prompted, ...] = ()
    prompt_logprobs: int | None = None
    is_echo_only: bool = False

    def around_word(self, choice: Choice) -> tuple[bytes, bytes] | None:
        """Return what stands around a word in its event."""
        if self.logprobs is not None or self.with_usage_always:
            return None
        before, _, after = self._event(choice, '"\0"', "null", "null", 0).partition("\0")
        return before.encode(), after.encode()

    def first(self, choice: Choice) -> bytes:
        """Return nothing: what is echoed comes along with the first token."""
        del choice
        return b""

    def delta(self, choice: Choice, start: int, stop: int) -> bytes:
        """Return an event for each of these tokens."""
        return "".join(
            [
                self._event(
                    choice,
                    self._text_json(choice, place, place + 1),
                    "null",
                    self._logprobs(choice, place, place + 1),
                    place + 1,
                )
                for place in range(start, stop)
            ]
        ).encode()

    def last(self, choice: Choice, start: int) -> bytes:
        """Return the events of the last tokens; the very last has the reason for the end."""
        end = choice.plan.total - 1
        event = self._event(
            choice,
            self._text_json(choice, end, end + 1),
            f'"{choice.plan.finish}"',
            self._logprobs(choice, end, end + 1),
            end + 1,
            after="" if self.with_usage else LAST_FINGERPRINT,
        )
        return self.delta(choice, start, end) + event.encode()

    def end(self, generation: Generation) -> bytes:
        """Return the usage, if it is wanted, and the end."""
        if not self.with_usage:
            return DONE
        return (_USAGE % (*self.names, stream_usage_json(generation))).encode() + DONE

    def whole(self, generation: Generation) -> bytes:
        """Return a whole completion."""
        engine_id = self.names.id[1:-1]
        top = self.prompt_logprobs
        shown = [] if top is None else [prompt_json(prompt, top) for prompt in self.prompts]
        return (
            _WHOLE
            % (
                *self.names,
                ",".join([self._choice(choice, shown) for choice in generation.choices]),
                FINGERPRINT,
                usage_json(generation),
                transfer_json(generation, is_prefill=self.is_prefill, engine_id=engine_id),
            )
        ).encode()

    def _echo(self, choice: Choice) -> str:
        return self.echoes[choice.index // self.choices_each] if self.echoes else ""

    def _text_json(self, choice: Choice, start: int, stop: int) -> str:
        """Return the text of some tokens, after what is echoed where they begin the answer."""
        echo = "" if start else self._echo(choice)
        if self.is_echo_only:
            return json.dumps(echo)
        if not echo:
            return content_json(choice, start, stop)
        return json.dumps(echo + content(choice, start, stop))

    def _event(
        self,
        choice: Choice,
        text: str,
        finish: str,
        probabilities: str,
        tokens_so_far: int,
        *,
        after: str = "",
    ) -> str:
        usage = ""
        if self.with_usage_always:
            usage = f',"usage":{stream_usage_json(choice.generation, tokens_so_far)}'
        reason = stop_reason_json(choice) if finish != "null" else "null"
        said = (choice.index, text, probabilities, finish, reason)
        return _EVENT % (*self.names, *said, usage, after)

    def _logprobs(self, choice: Choice, start: int, stop: int) -> str:
        top = self.logprobs
        if top is None:
            return "null"
        echo = self._echo(choice)
        if not start:
            rows = Rows()
            if echo:
                rows.add_prompt(self.prompts[choice.index // self.choices_each], top)
        else:
            drawn = choice.plan.pieces is None
            before = start * WORD_CHARACTERS if drawn else len(content(choice, 0, start))
            rows = Rows(len(echo) + before)
        if not self.is_echo_only:
            rows.add_answer(choice, start, stop, top)
        return rows.shown()

    def _choice(self, choice: Choice, shown: list[str]) -> str:
        plan = choice.plan
        return _CHOICE % (
            choice.index,
            self._text_json(choice, 0, plan.total),
            self._logprobs(choice, 0, plan.total),
            plan.finish,
            stop_reason_json(choice),
            shown[choice.index // self.choices_each] if shown else "null",
        )
