"""The benchmark of dispatch in its short form, and how it reads and draws a profile."""

import importlib
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
WAIT_SECONDS = 110.0
SVG = "{http://www.w3.org/2000/svg}"

STACKS = """\
Stack (most recent call first):
  File "/x/src/tidegate/processor/dispatcher.py", line 30 in take
  File "/x/src/tidegate/processor/dispatcher.py", line 20 in lane
  File "/x/lib/python3.11/asyncio/runners.py", line 118 in run
Stack (most recent call first):
  File "/x/src/tidegate/processor/dispatcher.py", line 31 in take
  File "/x/src/tidegate/processor/dispatcher.py", line 20 in lane
  File "/x/lib/python3.11/asyncio/runners.py", line 118 in run
Stack (most recent call first):
  File "/x/lib/python3.11/asyncio/runners.py", line 118 in run
Current thread 0x00007f (most recent call first):
  File "/x/lib/python3.11/site-packages/<odd> & co.py", line 1 in <lambda>
  File "/x/lib/python3.11/asyncio/runners.py", line 118 in run
"""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "dispatch.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.slow
def test_the_short_form_measures_everybody_who_is_there(tmp_path: Path) -> None:
    profile = tmp_path / "profile.svg"
    done = bench("--quick", "--profile", str(profile))
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    result = json.loads(last.removeprefix("RESULT "))
    (cell,) = result["cells"].values()
    expected = {"tidegate", "httpx"}
    if (Path(sys.executable).parent / "go").exists():
        expected |= {"Go client", "tidegate, TLS"}
    if importlib.util.find_spec("aiohttp"):
        expected |= {"aiohttp"}
    assert set(cell["cpu_us_per_request"]) == expected
    assert all(value > 0 for value in cell["cpu_us_per_request"].values())
    assert (result["ratio_to_go_client"] is not None) == ("Go client" in expected)
    assert result["ratio_to_go_client_max"] == result["ratio_to_go_client"]
    assert (result["ratio_tls"] is not None) == ("tidegate, TLS" in expected)
    assert (result["ratio_to_aiohttp"] is not None) == ("aiohttp" in expected)
    assert 0 < result["ratio_to_httpx"] < 1
    assert result["planning_cpu_us_per_line"] > 0
    assert result["job_seconds_1000_lines"] > 0
    assert set(result["commits_per_1000_lines"]) == {"600", "full"}
    # At full speed a commit takes many lines: 2 to 500, whatever the machine.
    assert 2 <= result["commits_per_1000_lines"]["full"] < 500
    assert ET.parse(profile).getroot().tag == f"{SVG}svg"
    assert "self time by function" in profile.with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--profile-only"], "--profile-only needs --profile"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_the_head_alone_is_one_cell_without_rates() -> None:
    done = bench("--quick", "--head")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert len(result["cells"]) == 1
    assert set(result["commits_per_1000_lines"]) == {"full"}


def test_every_extra_that_a_benchmark_names_exists_and_is_installed() -> None:
    named = {
        line.partition('"')[2].rstrip('"')
        for path in BENCH.glob("[a-z]*.py")
        for line in path.read_text().splitlines()
        if line.startswith("EXTRA = ")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named == {"bench"}
    assert named <= project["optional-dependencies"].keys()
    assert "'^EXTRA = \"bench\"$'" in (ROOT / "run").read_text()


# The profile


@pytest.fixture
def flame(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("_flame")


def test_stacks_are_read_from_the_outermost_function_on(flame: ModuleType) -> None:
    read = list(flame.stacks(STACKS))
    assert [len(stack) for stack in read] == [3, 3, 1, 2]
    assert [frame.place for frame in read[1]] == [
        "asyncio/runners.py:118 run",
        "tidegate/processor/dispatcher.py:20 lane",
        "tidegate/processor/dispatcher.py:31 take",
    ]


def test_a_stack_that_was_cut_at_either_end_is_read_as_far_as_it_goes(flame: ModuleType) -> None:
    lines = STACKS.splitlines()
    assert [len(stack) for stack in flame.stacks("\n".join(lines[2:6]))] == [2, 1]
    assert list(flame.stacks("")) == []


def test_the_graph_draws_each_function_as_wide_as_its_time(flame: ModuleType) -> None:
    drawn = ET.fromstring(flame.flame_graph(list(flame.stacks(STACKS)), "a < b"))
    widths = {}
    for group in drawn.findall(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert box is not None
        widths[title.text.partition(" (")[0]] = float(box.attrib["width"])
    whole = widths["all"]
    assert widths["asyncio/runners.py:run"] == whole
    assert widths["tidegate/processor/dispatcher.py:take"] == pytest.approx(whole / 2)
    assert widths["<odd> & co.py:<lambda>"] == pytest.approx(whole / 4)


def test_the_tables_share_the_cpu_out(flame: ModuleType) -> None:
    said = flame.tables(list(flame.stacks(STACKS)), 40.0)
    alone, by_line, within = said.split("\n\n")
    assert "  50.0   20.00  tidegate/processor/dispatcher.py:take" in alone
    assert "  25.0   10.00  tidegate/processor/dispatcher.py:31 take" in by_line
    assert "  50.0   20.00  tidegate/processor/dispatcher.py:lane" in within
    # What lies under every sample is left out: it says nothing.
    assert "runners.py:run" not in within
