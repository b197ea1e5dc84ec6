"""A model that counts who asks: for proofs of what is sent again after a crash, and what is not."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable

from tidegate.upstreams.base import Call, Reply


class CountingModel:
    """Answers every request after a while, and knows each by the text of its last message.

    Attributes:
        asked: how often each text was asked for.
        answered: how often an answer to it was ready to be sent.
        in_flight: requests that are being worked on.
    """

    def __init__(self, latency_seconds: Callable[[], float]) -> None:
        self._latency_seconds = latency_seconds
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight = 0
        self.was_asked = asyncio.Event()

    @property
    def requests(self) -> int:
        """Requests so far."""
        return self.asked.total()

    async def answer(self, call: Call) -> Reply:
        """Answer one call; use it as the handler of a server."""
        text = str(json.loads(call.body)["messages"][-1]["content"])
        self.asked[text] += 1
        self.was_asked.set()
        self.in_flight += 1
        try:
            await asyncio.sleep(self._latency_seconds())
        finally:
            self.in_flight -= 1
        self.answered[text] += 1
        reply = {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text.upper()}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
        return Reply(
            status=200,
            headers={"content-type": "application/json"},
            body=json.dumps(reply).encode(),
        )

    async def wait_for(self, requests: int) -> None:
        """Return once this many requests have come in all."""
        while self.requests < requests:
            self.was_asked.clear()
            await self.was_asked.wait()


def request(text: str) -> str:
    """Return the line of a batch file that asks for a text, and is named by it."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    line = {"custom_id": text, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line)
