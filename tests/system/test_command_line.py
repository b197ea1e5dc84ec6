"""What every command shares: completion for shells, help, and one line for each error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from testkit.processes import command, environment, run_to_end
from testkit.reference import commands
from tidegate import cli
from tidegate.cli import app
from tidegate.domain.errors import SettingsInvalid, TidegateError


def test_the_shell_completes_commands_and_flags() -> None:
    asked = {"_TIDEGATE_COMPLETE": "complete_bash", "COMP_WORDS": "tidegate bat", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'tidegate'; from tidegate.cli import app; app()"
    for words, count, expected in (
        ("tidegate bat", "1", "batches"),
        ("tidegate batches wa", "2", "watch"),
        ("tidegate batches watch --ev", "3", "--every"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment(), **asked, "COMP_WORDS": words, "COMP_CWORD": count},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.stdout.split() == [expected], done


def test_the_script_for_the_shell_is_shown() -> None:
    # Which shell it is would otherwise depend on what started the tests.
    done = run_to_end("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done
    assert "complete -o default -F" in done.stdout


def test_every_command_says_what_it_does_in_sentences() -> None:
    for path, found in commands(typer.main.get_command(app)):
        assert found.help, path
        assert found.help.rstrip().endswith("."), path


@pytest.mark.parametrize(
    ("error", "status"), [(SettingsInvalid("Set it."), 2), (TidegateError("It broke."), 1)]
)
def test_an_error_of_ours_is_one_line_and_its_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: TidegateError,
    status: int,
) -> None:
    def fail(*, standalone_mode: bool) -> None:
        assert not standalone_mode
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == status
    assert capsys.readouterr().err == f"tidegate: {error}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'. See `tidegate --help`."),
        (["run", "in"], "Missing option '--output' / '-o'. See `tidegate run --help`."),
        (
            ["run", "in", "-o", "out", "--order", "x\ny"],
            (
                "Invalid value for '--order': 'x\\ny' is not one of 'done', 'input'. "
                "See `tidegate run --help`."
            ),
        ),
        (["version", "--json"], "No such option: --json. See `tidegate version --help`."),
        (
            ["simulate", "--port", "65536"],
            (
                "Invalid value for '--port': Input should be less than or equal to 65535. "
                "See `tidegate simulate --help`."
            ),
        ),
        (
            ["engine", "--port", "-1"],
            (
                "Invalid value for '--port': Input should be greater than or equal to 0. "
                "See `tidegate engine --help`."
            ),
        ),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(words: list[str], said: str) -> None:
    done = run_to_end(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.replace("python -m ", "") == f"tidegate: {said}\n"


def test_help_is_no_error_and_no_words_at_all_bring_it() -> None:
    asked, bare = run_to_end("--help"), run_to_end()
    assert (asked.returncode, asked.stderr) == (0, "")
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr.strip() == asked.stdout.strip()


def test_ctrl_c_is_one_line_and_status_3(tmp_path: Path) -> None:
    pipe = tmp_path / "never-written"
    os.mkfifo(pipe)
    # Reading the configuration waits for a writer that never comes.
    words = command("config", "check", "--config", str(pipe) + ".yaml")
    (tmp_path / "never-written.yaml").symlink_to(pipe)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        # Opening for writing returns once the command reads, so it is in the middle of its work.
        writer = os.open(pipe, os.O_WRONLY)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        os.close(writer)
    assert process.returncode == 3
    assert said == "tidegate: interrupted.\n"
