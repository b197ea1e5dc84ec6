"""The form of an upload: its fields and one file, in any order, judged when all of it is there."""

import re
from dataclasses import dataclass

from tidegate.application.jsonl_check import Sniffer, Verdict
from tidegate.application.rules import expiry_seconds, unsupported
from tidegate.application.settings import Settings
from tidegate.domain.errors import Refused, TooLarge
from tidegate.domain.file import UPLOAD_PURPOSES, Purpose
from tidegate.wire.batch_request import ExpiresAfter, missing_parameter, wrong_type

FILENAME_CHARACTERS_MAX = 255
FILENAME_DEFAULT = "upload"
_ANCHOR = "expires_after[anchor]"
_SECONDS = "expires_after[seconds]"
_FIELDS = frozenset({"purpose", _ANCHOR, _SECONDS})
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of the form that is not the file."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStart:
    """The file begins; the pieces of bytes that follow are its content."""

    filename: str


FormEvent = Field | FileStart | bytes


class UploadForm:
    """Gathers what a form says, and refuses as early as it can.

    Attributes:
        bytes: the length of the file so far.
        expires_seconds: how long the file lives, once the form is finished; None means no end.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fields: dict[str, str] = {}
        self._sniffer = Sniffer()
        self._purpose: Purpose | None = None
        self.expires_seconds: int | None = None
        self._filename: str | None = None
        self.bytes = 0

    def add_field(self, field: Field) -> None:
        """Take a field; one that nobody knows is passed over.

        Raises:
            Refused: it came before with another value, or names an unknown purpose.
        """
        if field.name not in _FIELDS:
            return
        if self._fields.setdefault(field.name, field.value) != field.value:
            raise Refused(
                f"The form gives '{field.name}' twice; send it once.", param=_dotted(field.name)
            )
        if field.name == "purpose":
            self._purpose = _read_purpose(field.value)
            self._check_content()

    def start_file(self, start: FileStart) -> None:
        """Take the name of the file.

        Raises:
            Refused: there was a file already, or the name is too long.
        """
        if self._filename is not None:
            raise Refused("The form holds two files; upload them one by one.", param="file")
        self._filename = _basename(start.filename)

    def add_bytes(self, data: bytes) -> None:
        """Look at the next bytes of the file.

        Raises:
            Refused: it is meant for a batch and is no JSON Lines.
            TooLarge: the file is longer than its purpose allows.
        """
        self.bytes += len(data)
        self._sniffer.feed(data)
        self._check_content()

    def finish(self) -> None:
        """Judge the form as a whole.

        Raises:
            Refused: something is missing or wrong.
        """
        if self._filename is None:
            raise missing_parameter("file")
        if self._purpose is None:
            raise missing_parameter("purpose")
        self._sniffer.finish()
        self._check_content()
        self.expires_seconds = self._read_expiry()

    @property
    def filename(self) -> str:
        """The name of the file, once it has begun."""
        assert self._filename is not None, "no file has begun"
        return self._filename

    @property
    def purpose(self) -> Purpose:
        """The purpose, once the form is finished."""
        assert self._purpose is not None, "the form is not finished"
        return self._purpose

    @property
    def is_foreign(self) -> bool:
        """Return whether the file as a whole is of another kind, so that no line counts."""
        return self._sniffer.is_foreign

    def _check_content(self) -> None:
        limit = self._bytes_max()
        if self.bytes > limit:
            raise TooLarge(
                f"The file is larger than {limit} bytes, the most that this purpose allows. "
                "Split it into several files.",
                param="file",
            )
        if self._purpose is Purpose.BATCH and self._sniffer.verdict is Verdict.BAD:
            message = f"Invalid file format for Batch API. Must be .jsonl. {self._sniffer.hint}"
            raise Refused(message.removesuffix(". "))

    def _bytes_max(self) -> int:
        settings = self._settings
        if self._purpose is None:
            return max(settings.file_bytes_max, settings.other_file_bytes_max)
        if self._purpose is Purpose.BATCH:
            return settings.file_bytes_max
        return settings.other_file_bytes_max

    def _read_expiry(self) -> int | None:
        anchor, seconds = self._fields.get(_ANCHOR), self._fields.get(_SECONDS)
        if anchor is None and seconds is None:
            batch = self._purpose is Purpose.BATCH
            return self._settings.batch_file_expiry_seconds if batch else None
        if anchor is None or seconds is None:
            raise missing_parameter(_dotted(_ANCHOR if anchor is None else _SECONDS))
        if not _INTEGER.fullmatch(seconds):
            raise wrong_type(_dotted(_SECONDS), "an integer", seconds)
        return expiry_seconds("expires_after", ExpiresAfter(anchor=anchor, seconds=int(seconds)))


def _read_purpose(text: str) -> Purpose:
    if text not in UPLOAD_PURPOSES:
        raise unsupported("purpose", text, UPLOAD_PURPOSES)
    return Purpose(text)


def _basename(given: str) -> str:
    """Return the last step of what may be a path, without control characters.

    It is only shown, never used as a path; "." and ".." are still replaced.
    """
    name = given.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter for letter in name if letter.isprintable()).strip()
    if len(name) > FILENAME_CHARACTERS_MAX:
        raise Refused(
            f"The filename is longer than {FILENAME_CHARACTERS_MAX} characters; shorten it.",
            param="file",
        )
    return FILENAME_DEFAULT if name in {"", ".", ".."} else name


def _dotted(name: str) -> str:
    return name.replace("[", ".").removesuffix("]")
