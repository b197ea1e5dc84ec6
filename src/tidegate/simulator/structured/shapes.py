"""What an answer must be, where the request says so: calls of functions, or a text of a form."""

from collections.abc import Sequence

from tidegate.simulator.answers.plans import Limits, Plan, ToolCall, calling
from tidegate.simulator.answers.seeded import SeededChoices, digest
from tidegate.simulator.requests.bodies import (
    Body,
    ChatBody,
    Function,
    ResponseBody,
    ResponseTool,
    Tool,
)
from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.structured import schemas
from tidegate.simulator.structured.constraints import Shape, constraint, json_shape, object_shape
from tidegate.simulator.structured.scalars import Json
from tidegate.simulator.structured.variants import varied

TOOLS_MAX = 256
_NOT_THERE = "Tool choice 'function' not found in 'tools' parameter. (parameter=tool_choice)"
_NO_MATCH = (
    "The tool specified in `tool_choice` does not match any of the specified `tools` "
    "(parameter=tool_choice)"
)


def shape_of(body: Body) -> Shape | None:
    """Return what the answer to a chat or a completion must be, or None for anything.

    Raises:
        Refused: it is nothing that the simulator can make.
    """
    text = constraint(body.response_format, body.structured_outputs)
    if not isinstance(body, ChatBody):
        return text
    _check_chosen(body)
    if not body.tools or (text is not None and not _is_forced(body.tool_choice)):
        # A text that is constrained can't be a call.
        return text
    functions = [tool.function for tool in body.tools]
    return calls_shape(functions, _named(body.tool_choice), body) or text


def _check_chosen(body: ChatBody) -> None:
    """Refuse a choice of tools that makes no sense, in vLLM's words."""
    choice, asked = body.tool_choice, body.structured_outputs
    if body.tools == []:
        raise Refused(
            "`tools` must not be an empty array. Either provide at least one tool or omit the "
            "field entirely. (parameter=tools)",
            param="tools",
        )
    if choice not in (None, "none") and body.tools is None:
        raise Refused(
            "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)",
            param="tool_choice",
        )
    if asked is not None and isinstance(choice, Tool):
        raise Refused(
            "You can only either use constraints for structured outputs or tools, not both."
        )


# Functions


def response_shape(body: ResponseBody) -> Shape | None:
    """Return what a response must be, or None for anything.

    Raises:
        Refused: it is nothing that the simulator can make.
    """
    text = _response_text(body)
    functions = [
        Function(tool.name, tool.parameters)
        for tool in body.tools or ()
        if tool.type == "function" and tool.name
    ]
    if not functions:
        _check_without_tools(body)
        return text
    if text is not None and not _is_forced(body.tool_choice):
        return text
    return calls_shape(functions, _named(body.tool_choice), body) or text


def _check_without_tools(body: ResponseBody) -> None:
    if body.tool_choice == "required":
        raise Refused(
            "Tool choice 'required' must be specified with 'tools' parameter. "
            "(parameter=tool_choice)",
            param="tool_choice",
        )
    if isinstance(body.tool_choice, ResponseTool):
        raise Refused(_NOT_THERE, param="tool_choice")


def _response_text(body: ResponseBody) -> Shape | None:
    form = body.text.format if body.text is not None else None
    if form is None:
        return constraint(None, body.structured_outputs)
    if body.structured_outputs is not None:
        raise Refused(
            "Cannot specify both structured_outputs and text.format (parameter=structured_outputs)",
            param="structured_outputs",
        )
    if form.type == "json_schema":
        return json_shape(form.definition, "text")
    return object_shape() if form.type == "json_object" else None


def _named(choice: str | Tool | ResponseTool | None) -> tuple[str, str | None]:
    """Return how tools are chosen, and the name where one is forced."""
    if isinstance(choice, Tool):
        return "named", choice.function.name
    if isinstance(choice, ResponseTool):
        return "named", choice.name
    if choice not in {None, "auto", "none", "required"}:
        raise Refused(
            f"Invalid value for `tool_choice`: {choice}! Only named tools, "
            '"none", "auto" or "required" are supported. (parameter=tool_choice)',
            param="tool_choice",
        )
    return choice or "auto", None


def _is_forced(choice: str | Tool | ResponseTool | None) -> bool:
    return isinstance(choice, Tool | ResponseTool) or choice == "required"


def calls_shape(
    functions: Sequence[Function], chosen: tuple[str, str | None], body: ChatBody | ResponseBody
) -> Shape | None:
    """Return the shape of calls, or None where none is made.

    Left to itself (`auto`) it calls a function for every other prompt.
    """
    way, name = chosen
    if len(functions) > TOOLS_MAX:
        raise Refused(f"At most {TOOLS_MAX} tools are taken.", param="tools")
    if way == "none":
        return None
    if way == "named":
        functions = _of_name(functions, name, body)
    known = [_schema(function) for function in functions]
    for schema in known:
        schemas.write(schema, 0, "tools")
    several = way != "named" and len(functions) > 1 and body.parallel_tool_calls is not False

    def make(number: int) -> tuple[tuple[ToolCall, ...], int]:
        dice = SeededChoices(number)
        dice.roll(2)
        count = 1 + (dice.roll(2) if several else 0)
        first = dice.roll(len(functions))
        places = [place % len(functions) for place in range(first, first + count)]
        made = [
            _call(functions[each], known[each], number, place)
            for place, each in enumerate(places, start=first)
        ]
        return tuple(call for call, _ in made), sum(work for _, work in made)

    calls = varied(make)

    def shape(number: int, limits: Limits) -> Plan:
        if way == "auto" and SeededChoices(number).roll(2):
            raise NoCall
        return calling(limits, calls(number), "stop" if way == "named" else "tool_calls")

    return shape


class NoCall(Exception):
    """The answer is free words after all."""


def _of_name(
    functions: Sequence[Function], name: str | None, body: ChatBody | ResponseBody
) -> list[Function]:
    found = [function for function in functions if function.name == name]
    if not found:
        why = _NOT_THERE if isinstance(body, ResponseBody) else _NO_MATCH
        raise Refused(why, param="tool_choice")
    return found


def _schema(function: Function) -> Json:
    found = schemas.parse(function.parameters, "tools") if function.parameters else None
    return found or {"type": "object", "additionalProperties": False}


def _call(function: Function, schema: Json, number: int, place: int) -> tuple[ToolCall, int]:
    """Return a call, and how much work its arguments were."""
    own = digest(number, place)
    written = schemas.write(schema, own, "tools")
    name = f"chatcmpl-tool-{own:016x}{digest(own):016x}"
    return ToolCall(name, function.name, written.text), written.work
