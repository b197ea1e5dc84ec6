"""`tidegate validate`: the planner's rules, every problem, and what lies in the file."""

import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tidegate.application.settings import Settings as DeskSettings
from tidegate.domain.batch import Problem
from tidegate.domain.errors import Refused
from tidegate.offline.validate import (
    NAMES_MAX,
    OTHERS,
    Validation,
    ValidationReport,
    common_prefix,
    note_name,
)
from tidegate.planning.settings import Planning

SMALL = Planning(lines_max=1_000, models_max=3, run_lines_max=16, run_bytes_max=2_000)


def line(name: str, text: str = "hi", *, model: str = "m", **members: object) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **members}
    whole = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(whole)


async def judged(
    folder: Path,
    text: str | bytes,
    *,
    batch_api: DeskSettings | None = None,
    endpoint: str | None = None,
) -> tuple[ValidationReport, list[Problem]]:
    path = folder / "in.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with Validation(batch_api or DeskSettings(), SMALL, io.BytesIO) as validation:
        report = await validation.read(path, endpoint)
        return report, list(validation.problems())


async def test_a_sound_file_is_described(tmp_path: Path) -> None:
    rows = [line(f"{n}", "the same beginning " + "ab"[n % 2], max_tokens=7) for n in range(4)]
    rows.append(line("x", "other", model="n", max_completion_tokens=5))
    report, problems = await judged(tmp_path, "\n".join(rows))
    assert problems == []
    assert (report.lines, report.sound, report.problems) == (5, 5, 0)
    assert report.models == {"m": 4, "n": 1}
    assert report.endpoints == {"/v1/chat/completions": 5}
    assert report.endpoint == "/v1/chat/completions"
    assert report.duplicate_prompts == 2
    assert 0.5 < report.shared_prefix < 0.8
    assert report.output_tokens_max == 4 * 7 + 5
    assert report.input_tokens == pytest.approx(5 * 12, rel=0.5)


async def test_every_problem_is_reported_in_the_order_of_lines(tmp_path: Path) -> None:
    rows = ["malformed" if n % 2 else line("same") for n in range(400)]
    report, problems = await judged(tmp_path, "\n".join(rows))
    # Of the same custom_id the first line is sound.
    assert len(problems) == report.problems == 399
    numbers = [problem.line for problem in problems]
    assert numbers == list(range(2, 401))
    assert {problem.code for problem in problems} == {"invalid_json_line", "duplicate_custom_id"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\n\n", "empty_file"),
        (b"a,b\n1,2\n", "invalid_file"),
        (b"\x1f\x8b\x08rubbish", "invalid_file"),
        ('{"a":1}'.encode("utf-16"), "invalid_file"),
        (b"x" * (8 * 2**20 + 1), "line_too_large"),
    ],
)
async def test_what_is_no_batch_file_is_reported(tmp_path: Path, content: bytes, code: str) -> None:
    report, problems = await judged(tmp_path, content)
    assert report.problems == len(problems) > 0
    assert code in {problem.code for problem in problems}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"\n".join(b"%d" % number for number in range(5_000))), "compressed"),
        (b"\x1f\x8b" + b"no line end" * 400_000, "compressed"),
        ("\n".join(line(f"{n}") for n in range(50)).encode("utf-16"), "UTF-16"),
        (json.dumps([json.loads(line(f"{n}")) for n in range(50)], indent=1).encode(), "array"),
    ],
)
async def test_of_another_kind_of_file_the_cause_alone_is_reported(
    tmp_path: Path, content: bytes, words: str
) -> None:
    report, (problem,) = await judged(tmp_path, content)
    assert (problem.code, problem.line, report.problems) == ("invalid_file", None, 1)
    assert words in problem.message


async def test_after_a_bad_first_line_all_others_are_reported(tmp_path: Path) -> None:
    _, problems = await judged(tmp_path, "custom_id,prompt\n" + line("a") + "\n{}\n")
    assert [problem.line for problem in problems] == [None, 1, 3]


async def test_bounds_of_lines_models_and_bytes(tmp_path: Path) -> None:
    most = [line(str(number)) for number in range(SMALL.lines_max)]
    assert (await judged(tmp_path, "\n".join(most)))[1] == []
    report, (problem,) = await judged(tmp_path, "\n".join([*most, line("one more")]))
    assert (problem.code, problem.line, report.lines) == ("too_many_tasks", None, 1_001)
    models = "\n".join(line(name, model=name) for name in "abcd")
    assert [item.code for item in (await judged(tmp_path, models))[1]] == ["too_many_models"]
    batch_api = DeskSettings(file_bytes_max=len(models) - 1)
    _, problems = await judged(tmp_path, models, batch_api=batch_api)
    assert "larger than" in problems[0].message


async def test_the_endpoint_is_that_of_the_first_line_or_as_asked(tmp_path: Path) -> None:
    row = json.loads(line("a"))
    row["url"] = "/v1/embeddings"
    row["body"] = {"model": "m", "input": "hi"}
    text = "\n" + json.dumps(row) + "\n" + line("b")
    report, (problem,) = await judged(tmp_path, text)
    assert (report.endpoint, problem.code, problem.line) == ("/v1/embeddings", "invalid_url", 3)
    assert report.endpoints == {"/v1/embeddings": 1, "/v1/chat/completions": 1}
    report, (problem,) = await judged(tmp_path, text, endpoint="/v1/chat/completions")
    assert problem.line == 2


async def test_long_prompts_are_equal_only_where_all_of_them_is(tmp_path: Path) -> None:
    long = "x" * 20_000
    rows = [line("a", long), line("b", long), line("c", long + "y")]
    report, _ = await judged(tmp_path, "\n".join(rows))
    assert report.duplicate_prompts == 1


async def test_names_that_users_invent_do_not_grow_memory(tmp_path: Path) -> None:
    rows = [json.dumps({**json.loads(line(str(n))), "url": f"/v1/{n}"}) for n in range(999)]
    report, problems = await judged(tmp_path, "\n".join(rows))
    assert len(problems) == 999
    assert OTHERS not in report.endpoints
    rows += [json.dumps({"url": f"/v2/{n}"}) for n in range(10)]
    report, _ = await judged(tmp_path, "\n".join(rows))
    # The bound of lines is passed as well: what lies beyond it is counted, and not looked at.
    assert (report.lines, len(report.endpoints)) == (1_009, NAMES_MAX)
    noted = ValidationReport(
        endpoint="/v1/x", models={f"m{number}": 1 for number in range(NAMES_MAX)}
    )
    for name in ("m0", "new", "newer"):
        note_name(noted.models, name)
    assert (noted.models["m0"], noted.models[OTHERS]) == (2, 2)
    assert len(noted.models) == NAMES_MAX + 1


async def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    rules = Validation(DeskSettings(), SMALL, io.BytesIO)
    with rules as validation, pytest.raises(Refused, match="There is no file"):
        await validation.read(tmp_path / "no.jsonl")


async def test_lone_surrogates_are_counted_too(tmp_path: Path) -> None:
    report, problems = await judged(tmp_path, line("a", "\ud800" * 40))
    assert (problems, report.sound) == ([], 1)
    assert report.input_tokens > 0


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_the_common_prefix_is_the_longest(start: bytes, one: bytes, other: bytes) -> None:
    first, second = start + one, start + other
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert first[: length + 1] != second[: length + 1] or first == second


def test_shares_of_nothing_are_nothing() -> None:
    counts: Mapping[str, int] = ValidationReport(endpoint="/v1/x").models
    assert (counts, ValidationReport(endpoint="/v1/x").shared_prefix) == ({}, 0.0)
