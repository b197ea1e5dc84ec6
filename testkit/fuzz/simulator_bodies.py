"""Bodies for the simulated server: the right members, with values right or far from it."""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

JSON: SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
SMALL = st.integers(-2, 40)
# Pieces of rules: put together at random they are sound now and then, and nearly so often.
PATTERNS = st.lists(
    st.sampled_from(
        ["a", "b", ".", "(", ")", "(?:", "(?=", "[", "]", "[^", "-", "|", "*", "+", "?", "{2}", "{",
         "}", "{1,", "^", "$", "\\", "\\d", "\\W", "\\b", "\\u00e9", "\\x4", "\\1", "{900}", "\0"]
    ) | st.text(max_size=2),
    max_size=9,
).map("".join)  # fmt: skip
_KEYWORDS = (
    *("type", "properties", "required", "items", "enum", "const", "anyOf", "allOf", "$ref"),
    *("minimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems"),
    *("additionalProperties", "prefixItems", "uniqueItems", "format", "minProperties", "pattern"),
    *("maxProperties", "patternProperties", "propertyNames", "oneOf", "not", "$defs"),
)
SCHEMA: SearchStrategy[object] = st.recursive(
    st.dictionaries(
        st.sampled_from(_KEYWORDS),
        JSON
        | PATTERNS
        | st.sampled_from(
            ["object", "array", "string", "number", "integer", "#", "#/properties", "date", "uuid"]
        ),
        max_size=5,
    ),
    lambda inner: (
        st.builds(lambda name, each: {name: [each]}, st.sampled_from(["anyOf", "allOf"]), inner)
        | st.builds(lambda each: {"type": "object", "properties": {"a": each}}, inner)
        | st.builds(lambda each: {"type": "array", "items": each, "minItems": 2}, inner)
    ),
    max_leaves=4,
)
CONTENT = JSON | st.just([{"type": "text", "text": "a"}, {"type": "image_url"}])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT}) | JSON, max_size=2
)
_FUNCTION = st.fixed_dictionaries({"name": JSON, "parameters": SCHEMA})
TOOLS = st.lists(
    st.fixed_dictionaries({"function": _FUNCTION})
    | st.just({"function": {"name": "f", "parameters": {"type": "object"}}})
    | st.just({"type": "function", "name": "f", "parameters": {"type": "object"}}),
    max_size=2,
)
_STRUCTURED = st.fixed_dictionaries(
    {},
    optional={
        "json": SCHEMA,
        "regex": PATTERNS,
        "grammar": st.text(max_size=9),
        "choice": st.lists(st.text(max_size=60), max_size=2),
        "json_object": st.booleans(),
        "structural_tag": st.text(max_size=9),
    },
)
_RESPONSE_FORMAT = st.fixed_dictionaries(
    {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": SCHEMA})}
) | st.fixed_dictionaries({"type": st.sampled_from(["json_object", "text", "x"])})
MEMBERS: dict[str, SearchStrategy[object]] = {
    "messages": MESSAGES | st.just([{"role": "user", "content": "hi"}]),
    "prompt": JSON | st.lists(st.integers(0, 9), max_size=4) | st.just(["a b", "c"]),
    "input": JSON | st.just([{"role": "user", "content": "x"}]),
    "stream": st.booleans(),
    "stream_options": JSON | st.just({"include_usage": True}),
    "n": SMALL,
    "best_of": SMALL,
    "length_penalty": JSON | st.floats(allow_nan=False, allow_infinity=False),
    "max_tokens": SMALL,
    "max_completion_tokens": SMALL,
    "max_output_tokens": SMALL,
    "min_tokens": SMALL,
    "ignore_eos": st.booleans(),
    "stop": JSON | st.lists(st.text("ab ", max_size=2), max_size=3),
    "stop_token_ids": JSON | st.lists(st.integers(0, 70_000), max_size=2),
    "seed": JSON,
    "temperature": JSON | st.sampled_from([0, 1, 2.1]),
    "top_p": JSON,
    "logprobs": JSON | SMALL,
    "top_logprobs": SMALL,
    "prompt_logprobs": JSON | SMALL,
    "echo": st.booleans(),
    "add_generation_prompt": st.booleans(),
    "tools": TOOLS | JSON,
    "tool_choice": JSON
    | st.sampled_from(["auto", "none", "required"])
    | st.sampled_from([{"function": {"name": "f"}}, {"type": "function", "name": "f"}]),
    "parallel_tool_calls": JSON,
    "response_format": _RESPONSE_FORMAT,
    "structured_outputs": _STRUCTURED,
    "text": st.fixed_dictionaries({"format": JSON | _RESPONSE_FORMAT}),
    "guided_json": JSON,
    "guided_regex": JSON,
    "metadata": JSON | st.fixed_dictionaries({"tidegate_fault": JSON}),
    "kv_transfer_params": JSON | st.just({"do_remote_prefill": True}),
    "priority": JSON,
    "cache_salt": JSON,
    "model": st.sampled_from(["sim", "poet", "absent"]) | JSON,
    "request_id": JSON,
    "tokens": JSON,
    "dimensions": SMALL,
    "encoding_format": JSON,
    "windows": JSON,
    "lora_name": st.sampled_from(["poet", "sim", ""]) | JSON,
    "lora_path": JSON,
    "running-requests": JSON | st.sampled_from(["ramp:0:9:1s", "oscillate:1:2:3", "x:1:2:3"]),
    "kv-cache-usage": JSON,
    "ttft-buckets-values": JSON,
    "histograms": JSON,
}
BODIES: SearchStrategy[dict[str, object]] = st.fixed_dictionaries({}, optional=MEMBERS)


def usual(path: str) -> SearchStrategy[dict[str, object]]:
    """Return bodies that have what a path needs, so that the rest of them is looked at."""
    known: dict[str, dict[str, object]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
        "/v1/completions": {"prompt": "a b c"},
        "/v1/responses": {"input": "hi"},
        "/v1/embeddings": {"input": "hi"},
    }
    needed = known.get(path, {})
    kept = {"model", "messages", "prompt", "input"}
    members = {name: value for name, value in MEMBERS.items() if name not in kept}
    few = st.lists(st.sampled_from(sorted(members)), max_size=6, unique=True)
    rest = few.flatmap(lambda names: st.fixed_dictionaries({each: members[each] for each in names}))
    return rest.map(lambda optional: {**needed, **optional})
