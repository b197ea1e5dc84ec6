"""A short form of `./run fuzz`, and proof that it finds what it looks for and keeps it."""

import itertools
import time
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from testkit.fuzz import (
    api,
    config,
    connections,
    jsonl,
    multipart,
    replies,
    simulator,
    splicing,
    target,
)
from testkit.fuzz.__main__ import TARGETS, main
from testkit.fuzz.harness import INPUTS_PER_SEED, fuzz
from testkit.fuzz.mutations import CUTS, Edit, cut, edited, edits
from testkit.fuzz.target import Found, Hung, Searchable, Target
from tidegate.api.multipart import FormReader
from tidegate.api.responses import json_reply, send_reply
from tidegate.application.upload_form import FormEvent
from tidegate.domain.batch import Problem
from tidegate.endpoints.classify import ClassifiedAttempt, classify_reply
from tidegate.http_server.protocol import BoundedHttpProtocol
from tidegate.simulator.answers.generation import Choice
from tidegate.simulator.server.app import Simulator
from tidegate.upstreams.base import Reply
from tidegate.upstreams.http1.connection import Connection


@pytest.mark.parametrize("name", [it.name for it in TARGETS])
def test_some_seeds_find_nothing(name: str) -> None:
    found = next(it for it in TARGETS if it.name == name)
    assert found.search(0, INPUTS_PER_SEED) >= INPUTS_PER_SEED // 2


class _BrokenReader(FormReader):
    @override
    def feed(self, piece: bytes) -> list[FormEvent]:
        return [] if len(piece) == 1 else super().feed(piece)


class _EndlessConnection(Connection):
    @override
    def eof_received(self) -> None:
        return


class _PatientConnection(BoundedHttpProtocol):
    @override
    def _start_head_timer(self) -> None:
        return


def _all_wrong(number: int, raw: bytes, *, endpoint: str) -> Problem:
    return Problem(code="x", message="No.", line=number)


def _without_blanks(
    reply: Reply, request_id: str, custom_id: bytes, *, starting: bool
) -> ClassifiedAttempt:
    tidied = Reply(status=reply.status, headers=reply.headers, body=reply.body.replace(b": ", b":"))
    return classify_reply(tidied, request_id, custom_id, starting=starting)


def _failing_app(**ports: object) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_reply(json_reply(b"{}", status=500), scope, receive, send)

    return app


class _LeakingSimulator(Simulator):
    @override
    def withdraw(self, choice: Choice) -> None:
        return


def _unread(path: Path) -> None:
    raise ValueError("an error that nobody explains")


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (jsonl, "read_line", _all_wrong),
        (multipart, "FormReader", _BrokenReader),
        (replies, "Connection", _EndlessConnection),
        (splicing, "classify_reply", _without_blanks),
        (api, "build_app", _failing_app),
        (connections, "BoundedHttpProtocol", _PatientConnection),
        (config, "read_keys", _unread),
        (simulator, "Simulator", _LeakingSimulator),
    ],
)
def test_a_fault_in_what_is_fuzzed_is_found(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, broken: object
) -> None:
    monkeypatch.setattr(module, name, broken)
    fuzzed: Searchable = module.TARGET
    with pytest.raises(Found) as caught:
        fuzzed.search(0, INPUTS_PER_SEED)
    assert caught.value.__cause__ is not None
    assert caught.value.shown


def small(number: int) -> None:
    assert number < 700, "too large"


SOUND = Target(name="sound", inputs=st.integers(), check=lambda number: None)
BAD = Target(name="bad", inputs=st.integers(0, 10_000), check=small)


def test_what_is_found_is_kept_small_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "found"
    arguments = ["--minutes", "0", "--seed", "7", "--folder", str(folder)]
    assert main(arguments, [SOUND, BAD]) == 1
    printed = capsys.readouterr().out
    kept = folder / "bad-7.txt"
    assert [path.name for path in folder.iterdir()] == ["bad-7.txt"]
    text = kept.read_text()
    assert "Replay with: ./run fuzz --target bad --seed 7" in text
    assert "The smallest input that was found:\n700\n" in text
    assert "too large" in text
    assert str(kept) in printed
    assert "sound" in printed
    assert "nothing found" in printed
    again = main([*arguments, "--target", "bad"], [SOUND, BAD])
    assert again == 1
    assert kept.read_text().splitlines()[:5] == text.splitlines()[:5]


def test_nothing_found_is_reported_with_its_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "found"
    assert main(["--minutes", "0", "--folder", str(folder)], [SOUND]) == 0
    printed = capsys.readouterr().out
    assert "seeds/s" in printed
    assert "from seed " in printed
    assert not folder.exists()


def test_each_target_gets_its_share_until_the_time_is_over(tmp_path: Path) -> None:
    ticks = itertools.count()
    tallies = fuzz(
        [SOUND, Target(name="other", inputs=st.none(), check=lambda nothing: None)],
        seconds=30.0,
        first_seed=0,
        folder=tmp_path,
        now=lambda: float(next(ticks)),
    )
    assert abs(tallies["sound"].seeds - tallies["other"].seeds) <= 1
    assert tallies["sound"].seeds > 2


def test_an_input_that_never_finishes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "INPUT_SECONDS_MAX", 0.05)

    def sleepy(number: int) -> None:
        end = time.perf_counter() + 20
        while time.perf_counter() < end:
            pass

    with pytest.raises(Found) as caught:
        Target(name="sleepy", inputs=st.integers(), check=sleepy).search(0, 5)
    assert isinstance(caught.value.__cause__, Hung)
    assert caught.value.shown == "0"


@given(data=st.binary(max_size=50), places=CUTS)
def test_cut_pieces_make_the_whole(data: bytes, places: list[int]) -> None:
    pieces = cut(data, places)
    assert b"".join(pieces) == data
    assert all(pieces) or not data


@given(data=st.binary(max_size=50), changes=edits([b"x"]))
def test_edits_stay_small(data: bytes, changes: list[Edit]) -> None:
    assert abs(len(edited(data, changes)) - len(data)) <= 8 * len(changes)
