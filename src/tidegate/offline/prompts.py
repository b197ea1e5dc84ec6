"""Makes a line of a batch file from each row."""

import string
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from tidegate.domain.errors import Refused
from tidegate.offline.job import PromptOptions
from tidegate.offline.rows import Row

_encode = msgspec.json.Encoder(enc_hook=str).encode
# The member of the body that holds the prompt, and the one that bounds the answer.
_MEMBERS: Mapping[str, tuple[str, str]] = {
    "/v1/chat/completions": ("messages", "max_tokens"),
    "/v1/completions": ("prompt", "max_tokens"),
    "/v1/embeddings": ("input", "max_tokens"),
    "/v1/responses": ("input", "max_output_tokens"),
}


class Template:
    """Text with names of columns in braces; doubled braces are literal."""

    def __init__(self, text: str) -> None:
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise Refused(
                f"--prompt-template can't be read ({error}): write columns as {{name}}, and a "
                "literal brace twice."
            ) from error
        self._pieces: list[tuple[str, str | None]] = []
        for literal, name, form, conversion in parsed:
            if name == "" or form or conversion:
                raise Refused(
                    "--prompt-template takes names of columns in braces and nothing more, such as "
                    "'Translate: {text}'."
                )
            self._pieces.append((literal, name))
        if not any(name for _, name in self._pieces):
            raise Refused(
                "--prompt-template names no column, so every prompt would be the same: write one "
                "in braces, such as 'Translate: {text}'."
            )

    def render(self, row: Row) -> str:
        """Return the text for one row.

        Raises:
            Refused: the row lacks a column.
        """
        return "".join(
            literal + ("" if name is None else text_of(value_of(row, name)))
            for literal, name in self._pieces
        )


class Requests:
    """Makes one line of each row."""

    def __init__(self, prompt_options: PromptOptions, *, endpoint: str, model: str) -> None:
        if endpoint not in _MEMBERS:
            raise Refused(
                f"Rows can't become requests to {endpoint}: give whole request lines in a batch "
                f"file, or one of {', '.join(_MEMBERS)}."
            )
        self._options = prompt_options
        self._endpoint = endpoint
        self._model = model
        self._template = (
            None if prompt_options.template is None else Template(prompt_options.template)
        )

    def lines(self, rows: Iterable[Row]) -> Iterator[bytes]:
        """Yield the lines; line N is that of row N, and numbers without a row give blank lines.

        Raises:
            Refused: there is no row, or one lacks a column.
        """
        written = 0
        for row in rows:
            yield b"\n" * (row.number - written - 1) + self.line(row)
            written = row.number
        if not written:
            raise Refused("The input has no rows, so there is nothing to run: name another input.")

    def line(self, row: Row) -> bytes:
        """Return the line of one row.

        Raises:
            Refused: the row lacks a column.
        """
        name = self._options.id_column
        line = {
            "custom_id": str(row.number) if name is None else text_of(value_of(row, name)),
            "method": "POST",
            "url": self._endpoint,
            "body": self._body(row),
        }
        try:
            return _encode(line) + b"\n"
        except UnicodeEncodeError as error:
            raise Refused(f"Not text: {row.place} holds a lone surrogate.") from error

    def _body(self, row: Row) -> dict[str, object]:
        options = self._options
        member, bound = _MEMBERS[self._endpoint]
        body: dict[str, object] = {"model": self._model, member: self._prompt(row)}
        if options.system is not None and self._endpoint == "/v1/responses":
            body["instructions"] = options.system
        if options.max_tokens is not None:
            body[bound] = options.max_tokens
        return body | dict(options.parameters)

    def _prompt(self, row: Row) -> object:
        given: object
        if self._template is not None:
            given = self._template.render(row)
        else:
            assert self._options.column is not None, "neither template nor column"
            given = value_of(row, self._options.column)
        if self._endpoint != "/v1/chat/completions":
            return given if isinstance(given, list) else text_of(given)
        # A list already is a conversation.
        messages = (
            given if isinstance(given, list) else [{"role": "user", "content": text_of(given)}]
        )
        if self._options.system is None:
            return messages
        return [{"role": "system", "content": self._options.system}, *messages]


def value_of(row: Row, name: str) -> object:
    """Return the value of a column.

    Raises:
        Refused: the row has no such column.
    """
    try:
        return row.values[name]
    except KeyError:
        raise Refused(
            f"There is no column '{name}' in {row.place}; it has {_listed(row.values)}."
        ) from None


def text_of(value: object) -> str:
    """Return a value as text for a prompt or a cell: text unchanged, other values as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | list | dict):
        return _encode(value).decode()
    return str(value)


NAMES_SHOWN_MAX = 20


def _listed(names: Iterable[str]) -> str:
    found = [f"'{name}'" for name in names]
    more = f" and {len(found) - NAMES_SHOWN_MAX} more" if len(found) > NAMES_SHOWN_MAX else ""
    return (", ".join(found[:NAMES_SHOWN_MAX]) or "none") + more
