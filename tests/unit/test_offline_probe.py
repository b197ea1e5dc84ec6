"""What is asked of a model server before a run, and what its answers mean."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tidegate.domain.errors import ConnectFailed, Refused
from tidegate.offline.probe import ANSWER_SECONDS_MAX, check_servers
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

CHAT = "/v1/chat/completions"
Answer = Callable[[Call], Awaitable[Reply]]


def answering(statuses: dict[str, int], asked: list[Call]) -> Answer:
    async def answer(call: Call) -> Reply:
        asked.append(call)
        return Reply(status=statuses[call.path], headers={}, body=b"")

    return answer


def check(answer: Answer) -> None:
    run_virtual(check_servers({"http://models": MemoryUpstream(answer)}, CHAT))


def test_a_server_that_knows_neither_path_is_refused_in_one_sentence() -> None:
    asked: list[Call] = []
    with pytest.raises(Refused) as raised:
        check(answering({"/v1/models": 404, CHAT: 404}, asked))
    assert "http://models answers 404 to /v1/models and to /v1/chat/completions" in str(
        raised.value
    )
    assert "--no-check" in str(raised.value)
    assert [(call.method, call.path, call.body) for call in asked] == [
        ("GET", "/v1/models", b""),
        ("POST", CHAT, b""),
    ]


@pytest.mark.parametrize("status", [200, 401, 403, 405, 429, 500, 503])
def test_a_server_that_answers_for_its_models_is_asked_nothing_else(status: int) -> None:
    asked: list[Call] = []
    check(answering({"/v1/models": status}, asked))
    assert len(asked) == 1


@pytest.mark.parametrize("status", [400, 401, 405, 415, 422, 500, 503])
def test_a_server_without_a_list_of_models_is_taken_at_its_word(status: int) -> None:
    check(answering({"/v1/models": 404, CHAT: status}, []))


def test_a_server_that_is_away_or_silent_is_no_mistake() -> None:
    async def away(call: Call) -> Reply:
        raise ConnectFailed("Connection refused.")

    async def silent(call: Call) -> Reply:
        await asyncio.sleep(1_000.0)
        raise AssertionError("nobody waits for so long")

    check(away)

    async def bounded() -> float:
        await check_servers({"http://models": MemoryUpstream(silent)}, CHAT)
        return asyncio.get_running_loop().time()

    assert run_virtual(bounded()) == ANSWER_SECONDS_MAX


def test_of_several_servers_the_wrong_one_is_named() -> None:
    right = MemoryUpstream(answering({"/v1/models": 200}, []))
    wrong = MemoryUpstream(answering({"/v1/models": 404, CHAT: 404}, []))
    with pytest.raises(Refused, match="http://wrong answers 404"):
        run_virtual(check_servers({"http://right": right, "http://wrong": wrong}, CHAT))
