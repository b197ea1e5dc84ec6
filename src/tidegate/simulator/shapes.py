"""What an answer must be, where the request says so: a call of a function, JSON, one of a few."""

from collections.abc import Callable, Sequence

import msgspec

from tidegate.simulator import schemas
from tidegate.simulator.bodies import (
    Body,
    ChatBody,
    Function,
    NamedTool,
    ResponseBody,
    ResponseToolChoice,
    Tool,
)
from tidegate.simulator.dice import Dice, digest
from tidegate.simulator.plans import Limits, Plan, ToolCall, calling, written
from tidegate.simulator.refusal import Refused

TOOLS_MAX = 256
_ANY_OBJECT: schemas.Json = {
    "type": "object",
    "minProperties": 2,
    "additionalProperties": {"type": "string"},
}

# Makes the plan of a choice from its number, where it is not free words.
Shape = Callable[[int, Limits], Plan]


def shape_of(body: Body) -> Shape | None:
    """Return what the answer to a chat or a completion must be, or None for anything.

    Raises:
        Refused: it is nothing that the simulator can make.
    """
    if isinstance(body, ChatBody) and body.tools:
        found = calls_shape(_functions(body.tools), _named(body.tool_choice), body)
        if found is not None:
            return found
    elif isinstance(body, ChatBody) and _is_forced(body.tool_choice):
        raise Refused("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    form = body.response_format
    if form is not None and form.type == "json_schema":
        if form.json_schema is None or not form.json_schema.definition:
            raise Refused("response_format needs a json_schema.", param="response_format")
        return json_shape(form.json_schema.definition, "response_format")
    if form is not None and form.type == "json_object":
        return _object_shape
    if form is not None and form.type != "text":
        raise Refused(
            f"The simulator does not offer the response_format {form.type!r}.",
            param="response_format",
        )
    return _structured(body)


def _structured(body: Body) -> Shape | None:
    asked = body.structured_outputs
    if asked is None:
        return None
    if asked.choice is not None:
        return choice_shape(asked.choice)
    if asked.json and bytes(asked.json) != b"null":
        return json_shape(asked.json, "structured_outputs")
    if asked.json_object:
        return _object_shape
    if asked.regex or asked.grammar or asked.structural_tag:
        raise Refused(
            "The simulator offers structured_outputs by choice, json and json_object only.",
            param="structured_outputs",
        )
    raise Refused(
        "You must use one kind of structured outputs constraint but none are specified.",
        param="structured_outputs",
    )


def choice_shape(choices: Sequence[str]) -> Shape:
    """Return the shape of one of some texts."""
    if not choices:
        raise Refused("Choice '[]' cannot be an empty list", param="structured_outputs")
    return lambda number, limits: written(limits, choices[Dice(number).roll(len(choices))])


def json_shape(data: msgspec.Raw, param: str) -> Shape:
    """Return the shape of JSON that a schema accepts; that there is some is tried at once."""
    schema = schemas.parse(data, param)
    schemas.write(schema, 0, param)
    return lambda number, limits: written(limits, schemas.write(schema, number, param))


def _object_shape(number: int, limits: Limits) -> Plan:
    return written(limits, schemas.write(_ANY_OBJECT, number, "response_format"))


# Functions


def response_shape(body: ResponseBody) -> Shape | None:
    """Return what a response must be, or None for anything."""
    functions = [
        Function(tool.name, tool.parameters)
        for tool in body.tools or ()
        if tool.type == "function" and tool.name
    ]
    if functions:
        found = calls_shape(functions, _named(body.tool_choice), body)
        if found is not None:
            return found
    form = body.text.format if body.text is not None else None
    if form is not None and form.type == "json_schema":
        return json_shape(form.definition, "text")
    if form is not None and form.type == "json_object":
        return _object_shape
    return None


def _functions(tools: Sequence[Tool]) -> list[Function]:
    return [tool.function for tool in tools]


def _named(choice: str | NamedTool | ResponseToolChoice | None) -> tuple[str, str | None]:
    """Return how tools are chosen, and the name where one is forced."""
    if isinstance(choice, NamedTool):
        return "named", choice.function.name
    if isinstance(choice, ResponseToolChoice):
        return "named", choice.name
    if choice not in {None, "auto", "none", "required"}:
        raise Refused(
            "Invalid value for `tool_choice`: only named tools, "
            '"none", "auto" or "required" are supported.',
            param="tool_choice",
        )
    return choice or "auto", None


def _is_forced(choice: str | NamedTool | None) -> bool:
    return isinstance(choice, NamedTool) or choice == "required"


def calls_shape(
    functions: Sequence[Function],
    chosen: tuple[str, str | None],
    body: ChatBody | ResponseBody,
) -> Shape | None:
    """Return the shape of calls, or None where none is made.

    Left to itself (`auto`) it calls a function for every other prompt.
    """
    way, name = chosen
    if len(functions) > TOOLS_MAX:
        raise Refused(f"At most {TOOLS_MAX} tools are taken.", param="tools")
    if name is not None:
        functions = [function for function in functions if function.name == name]
        if not functions:
            raise Refused(f"The tool '{name}' is not among the tools.", param="tool_choice")
    if way == "none":
        return None
    known = [
        schemas.parse(function.parameters, "tools") if function.parameters else {}
        for function in functions
    ]
    for schema in known:
        schemas.write(schema or {}, 0, "tools")
    several = way != "named" and len(functions) > 1 and body.parallel_tool_calls is not False

    def shape(number: int, limits: Limits) -> Plan:
        dice = Dice(number)
        if way == "auto" and dice.roll(2):
            raise NoCall
        count = 1 + (dice.roll(2) if several else 0)
        first = dice.roll(len(functions))
        calls = [
            _call(functions[place % len(functions)], known[place % len(functions)], number, place)
            for place in range(first, first + count)
        ]
        return calling(limits, tuple(calls), "stop" if way == "named" else "tool_calls")

    return shape


class NoCall(Exception):
    """The answer is free words after all."""


def _call(function: Function, schema: schemas.Json, number: int, place: int) -> ToolCall:
    own = digest(number, place)
    wanted: schemas.Json = schema or {"type": "object", "additionalProperties": False}
    return ToolCall(
        f"chatcmpl-tool-{own:016x}{digest(own):016x}",
        function.name,
        schemas.write(wanted, own, "tools"),
    )
