"""The folder of a run: one process at a time, one input, one set of options."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tidegate.domain.errors import Conflict, Refused, StorageFull
from tidegate.offline.atomic_file import PART_SUFFIX, replace_atomically
from tidegate.offline.job import FileFormat, OfflineJob, PromptOptions
from tidegate.offline.state import RECORD_FILE, Finished, open_state

FINISHED = Finished(total=3, completed=2, failed=1, input_tokens=5, output_tokens=7, errors="e")


@pytest.fixture
def job(tmp_path: Path) -> OfflineJob:
    return OfflineJob(source=tmp_path / "in.jsonl", target=tmp_path / "out.jsonl")


def test_a_run_that_is_started_is_found_again(job: OfflineJob) -> None:
    with open_state(job) as state:
        assert not state.is_started
        state.bind("a" * 64)
    with open_state(job) as state:
        assert state.is_started
        assert state.finished is None
        state.bind("a" * 64)
        state.finish(FINISHED)
    with open_state(job) as state:
        assert state.finished == FINISHED
        state.remove()
        state.remove()
    assert not job.folder.exists()


def test_an_empty_folder_is_not_left_behind(job: OfflineJob) -> None:
    with open_state(job):
        assert job.folder.is_dir()
    assert not job.folder.exists()


def test_what_differs_is_named(job: OfflineJob) -> None:
    prompt_options = PromptOptions(template="{a}", parameters={"b": 1, "a": 2})
    begun = replace(job, model="m", prompt_options=prompt_options)
    with open_state(begun) as state:
        state.bind("a" * 64)
    same = replace(begun, prompt_options=replace(prompt_options, parameters={"a": 2, "b": 1}))
    free = replace(
        same, errors=job.target.with_name("e"), file_format=FileFormat.CSV, keep_state=True
    )
    with open_state(free) as state:
        state.bind("a" * 64)
    with open_state(replace(begun, model=None)) as state:
        with pytest.raises(Conflict, match='--model was "m" and is not given now') as conflict:
            state.bind("b" * 64)
        assert "the input has changed" in str(conflict.value)
        assert "--restart" in str(conflict.value)
    assert (job.folder / RECORD_FILE).is_file()


def test_a_second_holder_is_refused_until_the_first_has_gone(job: OfflineJob) -> None:
    with open_state(job):
        with pytest.raises(Conflict, match="Another `tidegate run` works on"), open_state(job):
            pass
        assert job.folder.is_dir()
    with open_state(job):
        pass


def test_restart_forgets_and_replaces(job: OfflineJob) -> None:
    with open_state(job) as state:
        state.bind("a" * 64)
        state.data.mkdir()
    job.target.write_text("old")
    with open_state(replace(job, restart=True)) as state:
        assert not state.is_started
        assert not state.has_data
        state.bind("b" * 64)


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl"])
def test_a_file_that_is_there_is_not_replaced(job: OfflineJob, name: str) -> None:
    job.target.with_name(name).write_text("mine")
    with pytest.raises(Conflict, match=f"{name} exists and"), open_state(job):
        pass
    assert not job.folder.exists()


def test_places_that_can_not_be_used_are_refused(job: OfflineJob, tmp_path: Path) -> None:
    for target, said in (
        (tmp_path / "no" / "out", "There is no folder"),
        (tmp_path, "is a folder"),
        (Path("-"), "must be a file"),
        (job.source, "must be different files"),
    ):
        with pytest.raises(Refused, match=said), open_state(replace(job, target=target)):
            pass
    with (
        pytest.raises(Refused, match="--errors"),
        open_state(replace(job, errors=tmp_path / "no" / "e")),
    ):
        pass


def test_a_device_is_not_replaced_by_results(job: OfflineJob, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for changed in (replace(job, target=pipe), replace(job, errors=pipe)):
        with (
            pytest.raises(Refused, match="is not a regular file"),
            open_state(replace(changed, restart=True)),
        ):
            pass
    assert pipe.is_fifo()


def test_a_path_where_no_folder_can_be_made_is_reported_as_such(job: OfflineJob) -> None:
    # No name can be made there, and the system says that it does not exist.
    target = Path("/proc/self/fd/out.jsonl")
    with (
        pytest.raises(Refused, match="of the run can't be used") as told,
        open_state(replace(job, target=target)),
    ):
        pass
    assert not isinstance(told.value, Conflict)


def test_a_malformed_record_or_one_of_another_version_is_reported(job: OfflineJob) -> None:
    with open_state(job) as state:
        state.bind("a" * 64)
    record = job.folder / RECORD_FILE
    text = record.read_text()
    record.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(Refused, match="another version"), open_state(job):
        pass
    record.write_text("malformed")
    with pytest.raises(Refused, match="to start again"), open_state(job):
        pass


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(TypeError), replace_atomically(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]  # breaks off in the middle
    assert path.read_text() == "old"
    with replace_atomically(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    with (
        pytest.raises(StorageFull, match="can't be written"),
        replace_atomically(tmp_path / ("x" * 255)),
    ):
        pass
    assert len("x" * 255 + PART_SUFFIX) > 255


def test_errors_lie_beside_lines_and_inside_tables(job: OfflineJob) -> None:
    assert job.errors_file == job.target.with_name("out.errors.jsonl")
    assert replace(job, file_format=FileFormat.CSV).errors_file is None
    named = job.target.with_name("mine")
    assert replace(job, file_format=FileFormat.CSV, errors=named).errors_file == named
