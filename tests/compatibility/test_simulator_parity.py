"""The simulator answers as the recorded servers did, but for what the docs say."""

from pathlib import Path

import msgspec
import pytest

from testkit.parity.__main__ import LLAMA, PAGE, VLLM, main, ours_like
from testkit.parity.asking import Recording
from testkit.parity.differences import Difference, Known, differences, known_in, sorted_out
from testkit.parity.probes import probes
from testkit.parity.shapes import events_of, families_of, shape_of

DATA = Path(__file__).parents[1] / "data" / "parity"


def recorded(name: str) -> Recording:
    return msgspec.json.decode((DATA / f"{name}.json").read_bytes(), type=Recording)


@pytest.mark.parametrize("server", [VLLM, LLAMA])
async def test_nothing_differs_but_what_is_known(server: str) -> None:
    theirs = recorded(server)
    assert theirs.server == server
    assert list(theirs.answers) == [probe.name for probe in probes(theirs.model)]
    found = differences(theirs, await ours_like(theirs))
    unknown, idle = sorted_out(server, found, known_in(PAGE))
    assert [str(difference) for difference in unknown] == []
    assert idle == [], "rows of the docs that nothing needs any more"


async def test_every_change_is_found() -> None:
    """The comparison sees a status, a header, a type, a member, an event, and a bucket."""
    theirs = recorded(VLLM)
    ours = await ours_like(theirs)
    before = {(item.probe, item.place) for item in differences(theirs, ours)}
    replace = msgspec.structs.replace
    answers, metrics = dict(theirs.answers), dict(theirs.metrics)
    chat, stream = answers["chat"], answers["chat.stream"]
    assert chat.shape is not None
    answers["chat"] = replace(chat, shape={**chat.shape, "id": "number", "new": "text"})
    answers["chat.n"] = replace(answers["chat.n"], status=201)
    answers["chat.stop"] = replace(answers["chat.stop"], headers={"content-type": "text/plain"})
    answers["chat.stream"] = replace(stream, events=stream.events[:-1])
    name = "vllm:time_to_first_token_seconds"
    metrics[name] = replace(metrics[name], buckets=["1.0"], labels=[])
    metrics["vllm:new"] = metrics[name]
    del metrics["vllm:num_requests_running"]
    changed = replace(theirs, answers=answers, metrics=metrics)
    after = {(item.probe, item.place) for item in differences(changed, ours)}
    assert after - before == {
        ("chat", "id"),
        ("chat", "new"),
        ("chat.n", "status"),
        ("chat.stop", "header content-type"),
        ("chat.stream", f"event {len(stream.events) - 1} data"),
        ("metrics", f"{name} buckets"),
        ("metrics", f"{name} labels"),
        ("metrics", "vllm:new"),
        ("metrics", "vllm:num_requests_running"),
    }


def test_shapes_show_types_and_the_values_of_few() -> None:
    value = {"a": [{"b": 1}, {"b": None}], "object": "list", "top_logprobs": [{" x": -1.0}]}
    assert shape_of(value) == {
        "": "object",
        "a": "list",
        "a[]": "object",
        "a[].b": "null|number",
        "object": "text=list",
        "top_logprobs": "list",
        "top_logprobs[]": "numbers by token",
    }


def test_events_are_reported_once_for_each_kind() -> None:
    text = (
        'data: {"a":1}\n\n: note\n\ndata: {"a":2}\n\nevent: end\r\ndata: x\r\n\r\ndata: [DONE]\n\n'
    )
    assert events_of(text) == [
        {"": "object", "a": "number"},
        {"event": "end", "data": "no JSON"},
        {"data": "[DONE]"},
    ]


def test_families_have_types_labels_and_buckets() -> None:
    rows = [f'h_bucket{{engine="0",le="{edge}"}} 1.0' for edge in ("1.0", "+Inf")]
    text = "\n".join(
        ["# TYPE h histogram", *rows, 'h_count{engine="0"} 1.0', 'h_sum{engine="0"} 1.0']
    )
    (family,) = families_of(text + "\n").values()
    assert (family.type, family.labels, family.buckets) == ("histogram", ["engine"], ["1.0", "inf"])


def test_a_row_accepts_what_it_says_and_no_more() -> None:
    row = Known("vllm", "chat*", "choices[].message.*", "why")
    missing = Known("vllm", "*", "+*", "why")
    difference = Difference("chat.n", "choices[].message.audio", "null", "text")
    assert row.is_of("vllm", difference)
    assert not row.is_of("llamacpp", difference)
    assert not row.is_of("vllm", Difference("completion", "choices[].message.audio", "a", "b"))
    assert not row.is_of("vllm", Difference("chat", "choices[].index", "a", "b"))
    assert not missing.is_of("vllm", difference)
    assert missing.is_of("vllm", Difference("chat", "x", "-", "text"))
    unknown, idle = sorted_out("vllm", [difference], [row, missing])
    assert (unknown, idle) == ([], [missing])


def test_the_command_reports_differences_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    source = DATA / "vllm.json"
    command = ["parity", "--replay", str(source), "--record", str(kept)]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('RESULT {"parity_failures":0,"probes":')
    assert kept.read_bytes() == source.read_bytes()
    spoiled = source.read_text().replace('"id": "text"', '"id": "number"')
    kept.write_text(spoiled)
    monkeypatch.setattr("sys.argv", ["parity", "--replay", str(kept)])
    assert main() == 1
    assert "NEW   chat  id" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["parity", "--replay", str(tmp_path / "absent")])
    assert main() == 2
    assert "nothing to compare with" in capsys.readouterr().err
