"""Runs from file to file in this process: forms, failures, options. The rest is `test_run.py`."""

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testkit.servers.counting import CountingModel, request
from testkit.servers.handler import HandlerServer
from tidegate.config import load
from tidegate.domain.errors import Refused
from tidegate.offline.job import FileFormat, OfflineJob, PromptOptions, ResultOrder
from tidegate.offline.progress import Snapshot
from tidegate.offline.run import OfflineRun, RunEnd, RunOutcome
from tidegate.runtime.services import ShutdownRequest
from tidegate.upstreams.base import Call, Reply
from tidegate.wiring.offline import run_offline


class Shown:
    """A view that remembers."""

    seconds = 0.05

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def draw(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


class Bench:
    """A model that answers in capitals, refuses what is bad, and serves two models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = CountingModel(lambda: 0.0)
        self.models = ["m"]
        self.url = ""
        self.is_elsewhere = False
        self.bodies: list[dict[str, object]] = []
        self.view = Shown()
        self.job = OfflineJob(source=folder / "in.jsonl", target=folder / "out.jsonl")

    async def answer(self, call: Call) -> Reply:
        headers = {"content-type": "application/json"}
        if self.is_elsewhere:
            return Reply(status=404, headers=headers, body=b'{"error":{"message":"No."}}')
        if call.method == "GET":
            models = {"object": "list", "data": [{"id": name} for name in self.models]}
            return Reply(status=200, headers=headers, body=json.dumps(models).encode())
        self.bodies.append({"path": call.path, **json.loads(call.body)})
        if b"bad" in call.body:
            return Reply(status=400, headers=headers, body=b'{"error":{"message":"Bad."}}')
        return await self.model.answer(call)

    async def run(self, job: OfflineJob) -> RunOutcome:
        settings = load(environment={}, flags={"upstream.url": self.url}).settings
        return await run_offline(settings, job, self.view)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    async with HandlerServer(made.answer) as server:
        made.url = server.url
        yield made


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_what_fails_goes_beside_the_output_in_order(bench: Bench) -> None:
    texts = ["a", "bad 1", "b", "c", "bad 2"]
    bench.job.source.write_text("\n".join(request(text) for text in texts))
    outcome = await bench.run(replace(bench.job, order=ResultOrder.INPUT))
    assert outcome.end is RunEnd.FINISHED
    assert outcome.finished is not None
    assert (outcome.finished.completed, outcome.finished.failed) == (3, 2)
    errors = bench.folder / "out.errors.jsonl"
    assert outcome.finished.errors == str(errors)
    assert [line["custom_id"] for line in lines(bench.job.target)] == ["a", "b", "c"]
    assert [line["custom_id"] for line in lines(errors)] == ["bad 1", "bad 2"]
    last = bench.view.snapshots[-1]
    assert (last.done, last.total, last.failed) == (5, 5, 2)


async def test_the_model_of_every_line_may_be_replaced(bench: Bench) -> None:
    bench.job.source.write_text("\n\n" + request("a") + "\n")
    await bench.run(replace(bench.job, model="other", errors=bench.folder / "e"))
    assert [body["model"] for body in bench.bodies] == ["other"]
    assert not (bench.folder / "e").exists()


async def test_a_batch_file_may_become_a_table(bench: Bench) -> None:
    bench.job.source.write_text("\n".join(request(text) for text in ("b", "bad", "a")))
    table = replace(bench.job, target=bench.folder / "out.csv", file_format=FileFormat.CSV)
    await bench.run(table)
    rows = list(csv.reader(table.target.read_text().splitlines()))
    assert rows == [
        ["custom_id", "response", "error", "input_tokens", "output_tokens"],
        ["b", "B", "", "3", "2"],
        ["bad", "", "400: Bad.", "", ""],
        ["a", "A", "", "3", "2"],
    ]


async def test_parquet_keeps_its_types_and_gains_columns(bench: Bench) -> None:
    source, target = bench.folder / "in.parquet", bench.folder / "out.parquet"
    count = 1_300
    columns = {
        "n": pa.array(range(count), pa.int32()),
        "text": pa.array([f"t{number}" for number in range(count)]),
        "at": pa.array([1] * count, pa.timestamp("ns")),
    }
    pq.write_table(pa.table(columns), source)
    job = OfflineJob(
        source=source,
        target=target,
        file_format=FileFormat.PARQUET,
        prompt_options=PromptOptions(template="say {text}", id_column="n"),
    )
    await bench.run(job)
    found = pq.read_table(target)
    assert [str(field.type) for field in found.schema] == [
        *("int32", "string", "timestamp[ns]"),
        *("string", "string", "int64", "int64"),
    ]
    assert found["response"].to_pylist() == [f"SAY T{number}" for number in range(count)]
    assert found["n"].to_pylist() == list(range(count))
    assert set(bench.model.asked.values()) == {1}


async def test_rows_with_other_columns_become_one_table(bench: Bench) -> None:
    bench.job.source.write_text('{"text":"a","n":1}\n\n{"text":"bad","more":[2]}\n')
    target = bench.folder / "out.parquet"
    prompt_options = PromptOptions(column="text", system="Be short.", parameters={"seed": 7})
    await bench.run(
        replace(
            bench.job, target=target, file_format=FileFormat.PARQUET, prompt_options=prompt_options
        )
    )
    names = ("text", "n", "more", "response", "error", "input_tokens", "output_tokens")
    assert pq.read_table(target).to_pylist() == [
        dict(zip(names, ("a", "1", None, "A", None, 3, 2), strict=True)),
        dict(zip(names, ("bad", None, "[2]", None, "400: Bad.", None, None), strict=True)),
    ]
    assert [body["seed"] for body in bench.bodies] == [7, 7]


async def test_rows_may_end_as_result_lines(bench: Bench) -> None:
    bench.job.source.write_text('{"text":"a"}\n\n{"text":"b"}\n')
    prompt_options = PromptOptions(template="{text}!")
    await bench.run(replace(bench.job, prompt_options=prompt_options, order=ResultOrder.INPUT))
    assert [line["custom_id"] for line in lines(bench.job.target)] == ["1", "3"]


async def test_the_only_model_of_a_server_is_taken_and_of_several_one_must_be_named(
    bench: Bench,
) -> None:
    bench.job.source.write_text('{"text":"a"}\n')
    job = replace(bench.job, prompt_options=PromptOptions(column="text"))
    bench.models = ["m", "n"]
    with pytest.raises(Refused, match="--model: the server lists m, n"):
        await bench.run(job)
    assert not job.folder.exists()
    bench.models = ["n"]
    await bench.run(job)
    assert [body["model"] for body in bench.bodies] == ["n"]


@pytest.mark.parametrize(
    ("prompt_options", "said"),
    [
        (None, "is not a batch file"),
        (PromptOptions(column="a", template="{a}"), "not both"),
        (PromptOptions(column="b"), "no column 'b' in line 2"),
        (PromptOptions(column="a", id_column="a"), "nothing"),
    ],
)
async def test_rows_that_can_not_become_requests_are_refused(
    bench: Bench, prompt_options: PromptOptions | None, said: str
) -> None:
    job = replace(
        bench.job, source=bench.folder / "in.csv", model="m", prompt_options=prompt_options
    )
    job.source.write_text("a\nx\nx\n")
    if said == "nothing":
        outcome = await bench.run(job)
        assert outcome.end is RunEnd.INVALID
        assert [item.code for item in outcome.problems] == ["duplicate_custom_id"]
    else:
        with pytest.raises(Refused, match=said):
            await bench.run(job)
    assert bench.bodies == []
    assert list(bench.folder.iterdir()) == [job.source]


async def test_a_table_that_would_have_a_column_twice_is_refused_at_once(bench: Bench) -> None:
    job = replace(
        bench.job, source=bench.folder / "in.csv", prompt_options=PromptOptions(column="error")
    )
    job.source.write_text("error\nx\n")
    table = replace(job, target=bench.folder / "out.csv", file_format=FileFormat.CSV)
    with pytest.raises(Refused, match="already has a column 'error'"):
        await bench.run(table)
    assert list(bench.folder.iterdir()) == [job.source]
    outcome = await bench.run(job)
    assert outcome.end is RunEnd.FINISHED


async def test_embeddings_go_to_their_endpoint(bench: Bench) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings"}
    body = {"model": "m", "input": "x", "messages": [{"content": "x"}]}
    bench.job.source.write_text(json.dumps({**row, "body": body}))
    await bench.run(bench.job)
    assert [body["path"] for body in bench.bodies] == ["/v1/embeddings"]


async def test_a_stop_before_anything_is_sent_leaves_nothing(bench: Bench) -> None:
    bench.job.source.write_text(request("a"))
    stops = ShutdownRequest()
    stops.request()

    def no_rooms(*_: object) -> object:
        raise AssertionError("it was stopped before")

    course = OfflineRun(bench.job, stops, bench.view, no_rooms)  # type: ignore[arg-type]  # never used
    async with asyncio.timeout(10.0):
        outcome = await course.run()
    assert outcome == RunOutcome(end=RunEnd.INTERRUPTED)
    assert not bench.job.folder.exists()


async def test_an_output_that_is_written_is_never_run_again(bench: Bench) -> None:
    """Killed between the record of the end and the removal of the folder: only that is left."""
    bench.job.source.write_text(request("a"))
    await bench.run(replace(bench.job, keep_state=True))
    for path in (bench.job.folder / "data").rglob("*"):
        if path.is_file():
            path.unlink()
    (bench.job.folder / "data").rename(bench.job.folder / "data.gone")
    outcome = await bench.run(bench.job)
    assert outcome.finished is not None
    assert outcome.finished.completed == 1
    assert len(bench.bodies) == 1
    assert not bench.job.folder.exists()


async def test_an_input_that_is_no_jsonl_is_refused_with_a_way_to_learn_more(bench: Bench) -> None:
    bench.job.source.write_bytes(request("a").encode("utf-16"))
    with pytest.raises(Refused, match=r"UTF-8\. `tidegate validate .*in.jsonl` lists every"):
        await bench.run(bench.job)
    assert list(bench.folder.iterdir()) == [bench.job.source]


async def test_a_wrong_address_is_reported_before_anything_is_sent(bench: Bench) -> None:
    bench.job.source.write_text(request("a"))
    bench.is_elsewhere = True
    with pytest.raises(Refused, match=r"answers 404 to /v1/models and to /v1/chat/completions"):
        await bench.run(bench.job)
    assert list(bench.folder.iterdir()) == [bench.job.source]
    outcome = await bench.run(replace(bench.job, checks_server=False))
    assert outcome.finished is not None
    assert outcome.finished.failed == 1


async def test_a_run_that_goes_on_asks_again_and_keeps_what_is_done(bench: Bench) -> None:
    bench.job.source.write_text("\n".join(request(text) for text in ("a", "slow")))
    came = asyncio.Event()
    answer = bench.model.answer

    async def slowly(call: Call) -> Reply:
        if b"slow" in call.body and not came.is_set():
            came.set()
            await asyncio.sleep(600.0)
        return await answer(call)

    bench.model.answer = slowly  # type: ignore[method-assign]  # a server that takes its time
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.run(bench.job), name="killed")
        await came.wait()
        task.cancel()
    bench.is_elsewhere = True
    with pytest.raises(Refused, match="answers 404"):
        await bench.run(bench.job)
    assert bench.job.folder.exists(), "what is done must not be thrown away"
    bench.is_elsewhere = False
    outcome = await bench.run(bench.job)
    assert outcome.finished is not None
    assert outcome.finished.completed == 2
