"""What every command shares: completion for shells, help, and one line for whatever goes wrong."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from tidegate import cli
from tidegate.cli import app
from tidegate.domain.errors import SettingsInvalid, TidegateError
from tidegate.testing.commands import command, environment, run_to_end
from tidegate.testing.reference import commands


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
    done = run_to_end("--show-completion", "bash")
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
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == status
    assert capsys.readouterr().err == f"tidegate: {error}\n"


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
