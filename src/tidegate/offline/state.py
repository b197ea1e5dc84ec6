"""The folder beside the output that lets a run continue after any interruption."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tidegate.domain.errors import Conflict, Refused
from tidegate.offline.atomic_file import flush_directory, replace_atomically
from tidegate.offline.job import OfflineJob

RECORD_FILE = "run.json"
LOCK_FILE = "lock"
DATA_FOLDER = "data"
GONE_FOLDER = "data.gone"
FORMAT = 1
LOCK_TRIES_MAX = 10


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a run whose output is written."""

    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    errors: str | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    input_sha256: str
    options: dict[str, str]
    finished: Finished | None = None


class RunState:
    """The folder of one run, locked by this process.

    The ledger in `data` is the truth about the lines; the record beside it holds the input and
    options that they were made from, and whether the output is written.
    """

    def __init__(self, job: OfflineJob) -> None:
        self._job = job
        self.path = job.folder
        self.data = job.folder / DATA_FOLDER
        self._record = _read(self.path / RECORD_FILE)

    @property
    def is_started(self) -> bool:
        """Return whether there is anything to continue."""
        return self._record is not None

    @property
    def finished(self) -> Finished | None:
        """The counts of the run, if only its folder is left to remove."""
        return None if self._record is None else self._record.finished

    @property
    def has_data(self) -> bool:
        """Return whether the ledger exists; it is removed in one step."""
        return self.data.is_dir()

    def bind(self, input_sha256: str) -> None:
        """Bind the run to its input and options, or check that they are those it is bound to.

        Raises:
            Conflict: the input or an option differs from that of the run that is here.
            StorageFull: the record can't be written.
        """
        if self._record is None:
            bound = self._job.fixed_options()
            self._write(_Record(format=FORMAT, input_sha256=input_sha256, options=bound))
            return
        different = list(_differences(self._record, input_sha256, self._job.fixed_options()))
        if different:
            raise Conflict(
                f"{self.path} holds a run with other options: {'; '.join(different)}. Restore "
                "that to continue it, or pass --restart to start again."
            )

    def finish(self, finished: Finished) -> None:
        """Record durably that the output is written: from now on nothing is sent for it again."""
        assert self._record is not None, "finished before it was started"
        self._write(msgspec.structs.replace(self._record, finished=finished))

    def clear(self) -> None:
        """Remove all but the lock; the record goes last, so that no half-removed run is used."""
        gone = self.path / GONE_FOLDER
        shutil.rmtree(gone, ignore_errors=True)
        if self.has_data:
            self.data.rename(gone)
            flush_directory(self.path)
            shutil.rmtree(gone, ignore_errors=True)
        (self.path / RECORD_FILE).unlink(missing_ok=True)
        flush_directory(self.path)
        self._record = None

    def remove(self) -> None:
        """Remove the folder; do nothing if it is gone."""
        if not self.path.is_dir():
            return
        self.clear()
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, record: _Record) -> None:
        with replace_atomically(self.path / RECORD_FILE) as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        self._record = record


@contextmanager
def open_state(job: OfflineJob) -> Iterator[RunState]:
    """Lock the folder of a run, and create it if needed; with `restart`, empty it.

    An empty folder is not left behind.

    Raises:
        Conflict: another process works on it, or the output exists.
        Refused: the folder can't be used, or another version created it.
    """
    _check_places(job)
    with _locked(job.folder):
        state = RunState(job)
        if job.restart:
            state.clear()
        try:
            if not job.restart and not state.is_started:
                _check_free(job)
            yield state
        finally:
            if not state.is_started:
                state.remove()


def _check_places(job: OfflineJob) -> None:
    if str(job.target) == "-":
        raise Refused("The output must be a file, so that a run can be continued: name one.")
    if not job.target.parent.is_dir():
        raise Refused(f"There is no folder {job.target.parent}: make it, or choose another output.")
    if job.target.is_dir():
        raise Refused(f"{job.target} is a folder: name a file for the output.")
    errors = job.errors_file
    for path in (job.target, errors):
        # Files are replaced as a whole, which would remove a device such as /dev/null.
        if path is not None and path.exists() and not path.is_file():
            raise Refused(f"{path} is not a regular file: name another one.")
    if errors is not None and not errors.parent.is_dir():
        raise Refused(f"There is no folder {errors.parent}: make it, or choose another --errors.")
    places = [path.resolve() for path in (job.source, job.target, errors) if path is not None]
    if len(set(places)) != len(places):
        raise Refused("Input, output and errors must be different files.")


def _check_free(job: OfflineJob) -> None:
    for path in (job.target, job.errors_file):
        if path is not None and os.path.lexists(path):
            raise Conflict(
                f"{path} exists and would be replaced: move it away, name another "
                "output, or pass --restart to replace it."
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """Return the descriptor of the lock. Try again if another process removes the folder."""
    path = folder / LOCK_FILE
    gone: OSError | None = None
    for _ in range(LOCK_TRIES_MAX):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            gone = error
            continue
        except OSError as error:
            raise _unusable(folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise _busy(folder) from error
        os.close(descriptor)
    if gone is not None and not folder.exists():
        # Some file systems report a missing folder if it can't be created.
        raise _unusable(folder, gone) from gone
    raise _busy(folder)


def _unusable(folder: Path, error: OSError) -> Refused:
    return Refused(
        f"The folder {folder} of the run can't be used "
        f"({error.strerror}): fix that, or choose another output."
    )


def _busy(folder: Path) -> Conflict:
    return Conflict(
        f"Another `tidegate run` works on {folder}: wait until it ends, or stop it with Ctrl-C."
    )


def _read(path: Path) -> _Record | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            f"{path} can't be read ({error}): pass --restart to another output, or remove "
            f"{path.parent} to start again."
        ) from error
    if record.format != FORMAT:
        raise Refused(
            f"{path.parent} was created by another version of Tidegate: finish it with that one, "
            "or remove it to start again."
        )
    return record


def _differences(record: _Record, input_sha256: str, options: Mapping[str, str]) -> Iterator[str]:
    if record.input_sha256 != input_sha256:
        yield "the input has changed (its SHA-256 differs)"
    for flag in sorted({*record.options, *options}):
        before, now = record.options.get(flag), options.get(flag)
        if before != now:
            yield f"{flag} was {before or 'not given'} and is {now or 'not given'} now"
