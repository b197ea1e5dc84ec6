"""From rows to request lines, and another model for lines that are there."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tidegate.domain.errors import Refused
from tidegate.offline.job import PromptOptions, endpoint_of
from tidegate.offline.model_override import changed, with_model
from tidegate.offline.prompts import Requests, Template, text_of
from tidegate.offline.rows import Row


def row(_number: int = 1, /, **values: object) -> Row:
    return row_of(values, _number)


def row_of(values: Mapping[str, object], number: int = 1) -> Row:
    return Row(number, f"line {number} of in.csv", values)


def body(prompt_options: PromptOptions, given: Row, endpoint: str = "chat") -> Mapping[str, object]:
    requests = Requests(prompt_options, endpoint=endpoint_of(endpoint), model="m")
    line = json.loads(requests.line(given))
    assert (line["method"], line["url"]) == ("POST", endpoint_of(endpoint))
    found: Mapping[str, object] = line["body"]
    return found


def test_no_row_at_all_is_reported() -> None:
    requests = Requests(PromptOptions(column="text"), endpoint=endpoint_of("chat"), model="m")
    with pytest.raises(Refused, match="has no rows"):
        list(requests.lines([]))


def test_a_template_is_filled_with_columns_and_nothing_else() -> None:
    template = Template("{{json}} {text}, {a b}: {n}{none}")
    filled = template.render(row_of({"text": "{text}", "n": 1.5, "none": None, "a b": ["é"]}))
    assert filled == '{json} {text}, ["é"]: 1.5'


def test_a_dot_in_a_template_is_a_name_and_reaches_into_nothing() -> None:
    assert Template("{a.b}").render(row_of({"a.b": "x"})) == "x"
    with pytest.raises(Refused, match=r"no column 'text\.__class__' in line 1"):
        Template("{text.__class__}").render(row(text="x"))


@pytest.mark.parametrize("text", ["{", "{}", "{a!r}", "{a:>10}", "no column", "a}", "{{a}}"])
def test_a_template_that_can_not_be_meant_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="--prompt-template"):
        Template(text)


def test_a_missing_column_names_its_place_and_what_is_there() -> None:
    with pytest.raises(Refused, match=r"There is no column 'b' in line 7 of in.csv; it has 'a'\."):
        Template("{b}").render(row(7, a=1))
    many = {f"c{number}": 1 for number in range(21)}
    with pytest.raises(Refused, match="'c19' and 1 more"):
        Template("{b}").render(row_of(many, 7))


def test_every_endpoint_gets_its_own_body() -> None:
    column = PromptOptions(column="text", max_tokens=5, system="be", parameters={"temperature": 0})
    given = row(text="hi")
    assert body(column, given) == {
        "model": "m",
        "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "temperature": 0,
    }
    bare = PromptOptions(column="text")
    assert body(bare, given, "completions") == {"model": "m", "prompt": "hi"}
    assert body(bare, given, "embeddings") == {"model": "m", "input": "hi"}
    assert body(column, given, "responses") == {
        "model": "m",
        "input": "hi",
        "instructions": "be",
        "max_output_tokens": 5,
        "temperature": 0,
    }


def test_a_column_may_hold_a_conversation() -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert body(PromptOptions(column="m"), row(m=messages))["messages"] == messages


def test_other_endpoints_need_whole_lines() -> None:
    with pytest.raises(Refused, match="/v1/rerank"):
        Requests(PromptOptions(column="a"), endpoint="/v1/rerank", model="m")
    with pytest.raises(Refused, match="--endpoint 'chatt' is not known"):
        endpoint_of("chatt")


def test_a_line_stands_at_the_number_of_its_row() -> None:
    requests = Requests(PromptOptions(column="a"), endpoint=endpoint_of("chat"), model="m")
    lines = b"".join(requests.lines([row(2, a="x"), row(5, a="y")])).split(b"\n")
    assert [number for number, line in enumerate(lines, 1) if line] == [2, 5]
    assert [json.loads(line)["custom_id"] for line in lines if line] == ["2", "5"]


def test_a_custom_id_may_come_from_a_column() -> None:
    requests = Requests(
        PromptOptions(column="a", id_column="id"), endpoint=endpoint_of("chat"), model="m"
    )
    assert json.loads(requests.line(row(a="x", id=17)))["custom_id"] == "17"
    with pytest.raises(Refused, match="no column 'id'"):
        requests.line(row(a="x"))


def test_text_of_values() -> None:
    texts = [text_of(value) for value in ("x", None, True, 1, 1.5, [1], {"a": "é"})]
    assert texts == ["x", "", "true", "1", "1.5", "[1]", '{"a":"é"}']


def test_only_the_model_of_a_line_changes() -> None:
    raw = b'{"custom_id": "a","body":{"model":"x", "n":1.50e3,"u":"\\u00e9", "big":' + b"9" * 40
    raw += b'},"url":"/v1/x"}'
    found = changed(raw, 'm"é')
    assert json.loads(found)["body"]["model"] == 'm"é'
    assert b'"n":1.50e3,"u":"\\u00e9","big":' + b"9" * 40 in found
    assert changed(b'{"body":{"a":1}}', "m") == b'{"body":{"a":1,"model":"m"}}'


def test_lone_surrogates_keep_their_place() -> None:
    found = changed(b'{"custom_id":"a","body":{"model":"x","t":"\\ud800"}}', "m")
    assert json.loads(found) == {"custom_id": "a", "body": {"model": "m", "t": "\ud800"}}
    assert b"\\ud800" in found


@pytest.mark.parametrize(
    "raw", [b"malformed", b"[]", b"{}", b'{"body":1}', b'{"body":', b'{"a":"\\ud800"}', b"\\u" * 9]
)
def test_what_is_no_request_stays_as_it_is(raw: bytes) -> None:
    assert changed(raw, "m") == raw


def test_lines_keep_their_numbers_and_a_long_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\n{"body":{}}\r\n\n\n{"body":{}}')
    changed_lines = b"".join(with_model(path, "m", line_bytes_max=100)).split(b"\n")
    assert [number for number, line in enumerate(changed_lines, 1) if line] == [2, 5]
    path.write_bytes(b'{"body":{}}\n' + b"x" * 101)
    with pytest.raises(Refused, match=r"Line 2 of .* larger than 100 bytes"):
        list(with_model(path, "m", line_bytes_max=100))
