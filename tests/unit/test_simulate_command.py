"""`tidegate simulate` refuses what can't be, in one line, and says what an engine is like."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli import app
from tidegate.cli.simulate import COLUMNS
from tidegate.domain.errors import SettingsInvalid

WRONG = [
    ["--preset", "gpt"],
    ["--block-size", "17"],
    ["--max-num-seqs", "0"],
    ["--max-num-seqs", "64", "--max-num-batched-tokens", "63"],
    ["--num-gpu-blocks", "-1"],
    ["--num-gpu-blocks", "0"],
    ["--block-size", "0"],
    ["--num-gpu-blocks", "10", "--max-model-len", "161"],
    ["--max-model-len", "0"],
    ["--scheduling-policy", "fair"],
    ["--time-factor", "0"],
    ["--token-latency", "-1"],
    ["--latency", "-1"],
    ["--startup-seconds", "-1"],
    ["--output-tokens", "0"],
    ["--in-flight-max", "0"],
    ["--max-num-queued-reqs", "-1"],
    ["--kv-transfer-seconds", "-1"],
    ["--cost-csv", "absent.csv"],
    ["--faults", "absent.yaml"],
    ["--served-model-name", " "],
    ["--lora-modules", "poet=/path"],
    ["--enable-lora", "--lora-modules", "poet"],
    ["--max-loras", "0"],
    ["--kv-events-config", "{"],
    ["--kv-events-config", '{"enable_kv_cache_events": true, "endpoint": "nowhere"}'],
    ["--fake-metrics", '{"running-requests": "jump"}'],
]


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_impossible_settings_are_refused_in_one_line(flags: list[str]) -> None:
    done = CliRunner().invoke(app, ["simulate", "--port", "0", *flags])
    assert isinstance(done.exception, SettingsInvalid), done.output
    assert "\n" not in str(done.exception)
    assert str(done.exception).endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        ",".join(COLUMNS) + "\n1,1,1,fast\n",
        ",".join(COLUMNS) + "\n1,1,1,0.1\n",
        ",".join(COLUMNS) + "\n" + "1,1,1,0.1\n" * 5,
    ],
    ids=["empty", "columns", "words", "short", "alike"],
)
def test_measurements_without_content_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(text)
    done = CliRunner().invoke(app, ["simulate", "--port", "0", "--cost-csv", str(path)])
    assert isinstance(done.exception, SettingsInvalid), done.output
    assert "\n" not in str(done.exception)
