"""`tidegate run` as a person runs it: real processes, a real ledger, a model that counts."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from testkit.processes import command, environment
from testkit.scenarios.killed_runs import committed
from testkit.servers.counting import CountingModel, request
from testkit.servers.handler import HandlerServer

BOUND_SECONDS = 60.0
LINES = 120


class Runs:
    """Starts runs in one folder, against one model."""

    def __init__(self, folder: Path, model: CountingModel, server: HandlerServer) -> None:
        self.folder = folder
        self.model = model
        self.server = server
        self.output = folder / "out.jsonl"
        self.state = folder / "out.jsonl.tidegate"

    def write(self, lines: int = LINES) -> None:
        (self.folder / "in.jsonl").write_text(
            "".join(request(f"t{n}") + "\n" for n in range(lines))
        )

    async def start(self, *extra: str, source: str = "in.jsonl") -> asyncio.subprocess.Process:
        words = ["run", source, *([] if "-o" in extra else ["-o", "out.jsonl"]), "--json", *extra]
        return await asyncio.create_subprocess_exec(
            *command(*words, "--upstream", self.server.url),
            cwd=self.folder,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *extra: str, source: str = "in.jsonl", status: int = 0) -> str:
        """Run to the end; return what was said on standard error."""
        process = await self.start(*extra, source=source)
        async with asyncio.timeout(BOUND_SECONDS):
            self.said, errors = (text.decode() for text in await process.communicate())
        assert process.returncode == status, errors
        assert "Traceback" not in errors
        return errors

    def summary(self) -> dict[str, object]:
        return cast("dict[str, object]", json.loads(self.said))

    def names(self) -> list[str]:
        return [json.loads(line)["custom_id"] for line in self.output.read_text().splitlines()]


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    model = CountingModel(lambda: 0.02)
    async with HandlerServer(model.answer) as server:
        yield Runs(tmp_path, model, server)


async def test_a_file_becomes_a_file_in_its_order_and_nothing_is_left_behind(runs: Runs) -> None:
    runs.write()
    await runs.run("--order", "input")
    assert runs.names() == [f"t{number}" for number in range(LINES)]
    assert set(runs.model.asked.values()) == {1}
    summary = runs.summary()
    assert (summary["status"], summary["total"], summary["completed"]) == ("finished", LINES, LINES)
    assert (summary["failed"], summary["errors"]) == (0, None)
    assert (summary["input_tokens"], summary["output_tokens"]) == (3 * LINES, 2 * LINES)
    assert sorted(path.name for path in runs.folder.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.slow
async def test_killed_runs_go_on_and_send_nothing_again_that_was_finished(runs: Runs) -> None:
    runs.write()
    lost = 0
    kills: list[tuple[frozenset[str], Counter[str]]] = []
    for kill in (1, 2, 3):
        before = Counter(runs.model.asked)
        process = await runs.start("--concurrency", "4")
        async with asyncio.timeout(BOUND_SECONDS):
            await runs.model.wait_for(kill * LINES // 5)
        process.kill()
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
        await runs.server.wait_until_left()
        assert not runs.output.exists()
        finished = await committed(runs.state)
        asked = Counter(runs.model.asked)
        lost += sum(count for text, count in (asked - before).items() if text not in finished)
        kills.append((finished, asked))
    await runs.run()
    assert sorted(runs.names()) == sorted(f"t{number}" for number in range(LINES))
    assert kills[-1][0], "nothing was finished before the last kill"
    for finished, asked in kills:
        again = [text for text in finished if runs.model.asked[text] != asked[text]]
        assert again == [], "a finished line was sent again"
    # Everything sent twice is explained: it was lost in flight, or before its commit.
    assert runs.model.requests == LINES + lost
    assert lost > 0
    assert not runs.state.exists()


async def test_a_stopped_run_keeps_what_is_done_and_goes_on(runs: Runs) -> None:
    runs.write()
    process = await runs.start("--concurrency", "4")
    async with asyncio.timeout(BOUND_SECONDS):
        await runs.model.wait_for(20)
    process.send_signal(signal.SIGINT)
    out, errors = await process.communicate()
    assert process.returncode == 3, errors
    summary = json.loads(out)
    assert summary["status"] == "interrupted"
    # It stops in good order: the answer of each request that was sent is stored.
    assert summary["completed"] == runs.model.requests < LINES
    assert f"Stopped: {summary['completed']} of {LINES} lines are done" in errors.decode()
    assert "Run the same command again to continue." in errors.decode()
    await runs.run()
    assert set(runs.model.asked.values()) == {1}
    assert len(set(runs.names())) == len(runs.names()) == LINES


async def test_a_second_signal_does_not_wait_for_what_is_in_flight(runs: Runs) -> None:
    runs.model = CountingModel(lambda: 3_600.0)
    async with HandlerServer(runs.model.answer) as server:
        runs.server = server
        runs.write(4)
        process = await runs.start()
        async with asyncio.timeout(BOUND_SECONDS):
            await runs.model.wait_for(4)
            # Signals in quick succession may be handled as one, so signal again until it has ended,
            # but not so soon that a signal meets an interpreter that is exiting.
            while process.returncode is None:
                process.send_signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    async with asyncio.timeout(3.0):
                        await process.wait()
        await process.communicate()
    assert process.returncode == 3


async def test_only_one_process_works_on_an_output(runs: Runs) -> None:
    runs.write(10 * LINES)  # The first run must outlast the start of a second one.
    process = await runs.start("--concurrency", "1")
    async with asyncio.timeout(BOUND_SECONDS):
        await runs.model.wait_for(1)
    errors = await runs.run(status=2)
    assert "Another `tidegate run` works on out.jsonl.tidegate" in errors
    assert errors.count("\n") == 1
    process.kill()
    await process.communicate()


async def test_another_input_or_option_is_refused_and_restart_starts_over(runs: Runs) -> None:
    runs.write()
    process = await runs.start("--concurrency", "2")
    async with asyncio.timeout(BOUND_SECONDS):
        await runs.model.wait_for(10)
    process.terminate()
    await process.communicate()
    before = runs.model.requests
    errors = await runs.run("--model", "other", status=2)
    assert '--model was not given and is "other" now' in errors
    assert "--restart" in errors
    runs.write(LINES - 1)
    errors = await runs.run(status=2)
    assert "the input has changed" in errors
    assert errors.count("\n") == 1
    assert runs.model.requests == before
    await runs.run("--restart")
    assert len(runs.names()) == LINES - 1


async def test_an_output_that_is_there_is_not_replaced_unasked(runs: Runs) -> None:
    runs.write(3)
    runs.output.write_text("precious")
    errors = await runs.run(status=2)
    assert "out.jsonl exists and" in errors
    assert runs.output.read_text() == "precious"
    assert not runs.state.exists()
    await runs.run("--restart")
    assert len(runs.names()) == 3


async def test_an_invalid_input_is_reported_by_line_and_sends_nothing(runs: Runs) -> None:
    text = request("one") + "\n\n" + request("one") + "\nmalformed\n"
    (runs.folder / "in.jsonl").write_text(text)
    errors = await runs.run(status=2)
    assert "in.jsonl can't be run, and nothing was sent:" in errors
    assert "line 3: " in errors
    assert "(duplicate_custom_id)" in errors
    assert "line 4: This line is not parseable as valid JSON. (invalid_json_line)" in errors
    assert runs.summary()["status"] == "invalid"
    assert runs.model.requests == 0
    # The fixed file can be run.
    assert not runs.state.exists()
    runs.write(2)
    await runs.run()


async def test_rows_become_prompts_and_answers_columns(runs: Runs) -> None:
    (runs.folder / "in.csv").write_bytes(b'id,text\r\na,"x, y"\r\nb,z\r\n')
    flags = ("-o", "out.csv", "--prompt-template", "say {text}", "--model", "m")
    await runs.run(*flags, source="in.csv")
    assert (runs.folder / "out.csv").read_text() == (
        "id,text,response,error,input_tokens,output_tokens\n"
        'a,"x, y","SAY X, Y",,3,2\n'
        "b,z,SAY Z,,3,2\n"
    )


async def test_a_kept_state_writes_the_output_again_without_a_request(runs: Runs) -> None:
    runs.write(5)
    await runs.run("--keep-state")
    assert runs.state.is_dir()
    runs.output.unlink()
    await runs.run("--order", "input", "--keep-state")
    assert runs.names() == [f"t{number}" for number in range(5)]
    assert runs.model.requests == 5


async def test_a_server_that_is_away_is_waited_for_and_reported(runs: Runs) -> None:
    runs.write(2)
    async with HandlerServer(runs.model.answer) as away:
        url = away.url
    words = ["run", "in.jsonl", "-o", "out.jsonl", "--upstream", url]
    process = await asyncio.create_subprocess_exec(
        *command(*words), cwd=runs.folder, env=environment(), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(BOUND_SECONDS):
        line = ""
        while "waiting: " not in line:
            line = (await process.stderr.readline()).decode()
        process.terminate()
        await process.communicate()
    assert process.returncode == 3
