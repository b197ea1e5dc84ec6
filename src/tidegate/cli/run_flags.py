"""The flags of `tidegate run`."""

from pathlib import Path
from typing import Annotated

import typer

from tidegate.offline.job import FileFormat, ResultOrder

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Batch lines (JSONL), or rows as JSONL, CSV or Parquet.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="The file for the results: JSONL, CSV or Parquet.",
        show_default=False,
    ),
]
Upstream = Annotated[
    str | None,
    typer.Option(help="The base URL of the model server. Else upstream.url of the settings."),
]
Model = Annotated[
    str | None,
    typer.Option(help="The model for every line; it replaces the one that a batch line names."),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        help="chat, completions, embeddings, responses or a path. "
        "[default: that of the first batch line, else chat]"
    ),
]
PromptTemplate = Annotated[
    str | None,
    typer.Option(help="IN holds rows: the prompt of each, with columns as in 'Translate: {text}'."),
]
Column = Annotated[str | None, typer.Option(help="IN holds rows: the column that is the prompt.")]
System = Annotated[str | None, typer.Option(help="With rows: a system message for each request.")]
IdColumn = Annotated[
    str | None,
    typer.Option(help="With rows: the column that is the custom_id. [default: the row's number]"),
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="With rows: the most tokens of an answer.")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=JSON",
        help="With rows: another member of each body, such as temperature=0.2; several times.",
    ),
]
OutputFormat = Annotated[
    FileFormat | None,
    typer.Option("--format", help="The format of OUT. [default: by its suffix, else jsonl]"),
]
Order = Annotated[
    ResultOrder,
    typer.Option(
        help="Results in the order of completion (done) or of IN (input); tables are as IN."
    ),
]
Errors = Annotated[
    Path | None,
    typer.Option(
        help="The file for failed lines. [default: out.errors.jsonl for out.jsonl; a table has "
        "a column for them]"
    ),
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="The most requests in flight. [default: 256]")
]
KeyVariable = Annotated[
    str | None, typer.Option(help="The variable that holds the key of the model server.")
]
KeyFile = Annotated[
    Path | None, typer.Option(help="The file that holds the key of the model server.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Start again, and replace the files of an earlier run.")
]
KeepState = Annotated[
    bool, typer.Option("--keep-state", help="Keep the folder OUT.tidegate at the end.")
]
NoCheck = Annotated[
    bool,
    typer.Option(
        "--no-check", help="Do not check first whether the model server knows the endpoint."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object at the end, for scripts.")
]
