"""The options of one offline run, and which of them must stay the same to continue it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tidegate.domain.errors import Refused

STATE_SUFFIX = ".tidegate"
ENDPOINTS: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
}


class ResultOrder(StrEnum):
    """The order of result lines."""

    DONE = "done"  # In the order of completion.
    INPUT = "input"  # In the order of their requests in the input.


class FileFormat(StrEnum):
    """The format of an input or an output."""

    JSONL = "jsonl"  # One JSON object a line.
    CSV = "csv"  # Rows with a header, UTF-8.
    PARQUET = "parquet"  # Columns; needs pyarrow.


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """How a row becomes a request.

    The prompt is `template` with columns filled in, or the value of `column`; one of them is set.
    `parameters` are further members of the body.
    """

    template: str | None = None
    column: str | None = None
    system: str | None = None
    id_column: str | None = None
    max_tokens: int | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineJob:
    """One run. Without `prompt_options` the input holds OpenAI's batch lines.

    `endpoint` is a path such as `/v1/embeddings`; None takes the one of the first line, or chat.
    `errors` is the file for failed lines; None means beside `target`, or no file for a table, as it
    has a column for errors. With `restart` the files of an earlier run are replaced. With
    `checks_server` a server that does not know the endpoint is refused before anything is sent.
    """

    source: Path
    target: Path
    errors: Path | None = None
    endpoint: str | None = None
    model: str | None = None
    prompt_options: PromptOptions | None = None
    order: ResultOrder = ResultOrder.DONE
    file_format: FileFormat = FileFormat.JSONL
    keep_state: bool = False
    restart: bool = False
    checks_server: bool = True

    @property
    def folder(self) -> Path:
        """The folder of the run, beside the output."""
        return self.target.with_name(self.target.name + STATE_SUFFIX)

    @property
    def errors_file(self) -> Path | None:
        """The file for failed lines, if any."""
        if self.errors is not None or self.file_format is not FileFormat.JSONL:
            return self.errors
        return self.target.with_name(f"{self.target.stem}.errors.jsonl")

    def fixed_options(self) -> dict[str, str]:
        """Return the flags that decide what is sent, each with its value as text.

        A run may only be continued with the same values. The target, its order and the address of
        the model server may change.
        """
        prompt_options = self.prompt_options or PromptOptions()
        values: dict[str, object] = {
            "--endpoint": self.endpoint,
            "--model": self.model,
            "--prompt-template": prompt_options.template,
            "--column": prompt_options.column,
            "--system": prompt_options.system,
            "--id-column": prompt_options.id_column,
            "--max-tokens": prompt_options.max_tokens,
            "--param": dict(prompt_options.parameters) or None,
        }
        return {
            flag: json.dumps(value, sort_keys=True)
            for flag, value in values.items()
            if value is not None
        }


def file_format_of(path: Path) -> FileFormat:
    """Return the format by the suffix of a file name; an unknown suffix means JSONL."""
    return {".csv": FileFormat.CSV, ".parquet": FileFormat.PARQUET}.get(
        path.suffix.lower(), FileFormat.JSONL
    )


def endpoint_of(text: str) -> str:
    """Return the path of an endpoint that is given by its short name or as a path.

    Raises:
        Refused: it is neither.
    """
    if text in ENDPOINTS:
        return ENDPOINTS[text]
    if text.startswith("/v1/"):
        return text
    raise Refused(
        f"--endpoint '{text}' is not known: use {', '.join(ENDPOINTS)}, or a path such as "
        "/v1/embeddings."
    )
