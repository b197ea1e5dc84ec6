"""`tidegate run`: a batch from file to file, without a server."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tidegate.cli.options import Assignments, ConfigFile, flags_of
from tidegate.cli.run_view import make_view, told
from tidegate.cli.running import explanation
from tidegate.config import Settings, load
from tidegate.domain.errors import Refused, SettingsInvalid, TidegateError
from tidegate.offline.course import End, Outcome
from tidegate.offline.job import Form, Job, Order, Prompting, endpoint_of, form_of
from tidegate.telemetry.logs import configure
from tidegate.wiring import run_offline

STATUSES = {End.FINISHED: 0, End.INVALID: 2, End.INTERRUPTED: 3}
SOME_FAILED = 1
DIED = 1
IN_FLIGHT_DEFAULT = 256


def run(  # noqa: PLR0913 -- each parameter is one flag of the command line
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Batch lines (JSONL), or rows as JSONL, CSV or Parquet.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where the results go: JSONL, CSV or Parquet.",
            show_default=False,
        ),
    ],
    upstream: Annotated[
        str | None,
        typer.Option(help="The base URL of the model server. Else gateway.url of the settings."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model for every line; one that a batch line names is replaced."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="chat, completions, embeddings, responses or a path. "
            "[default: that of the first batch line, else chat]"
        ),
    ] = None,
    prompt_template: Annotated[
        str | None,
        typer.Option(
            help="IN holds rows: the prompt of each, with columns as in 'Translate: {text}'."
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="IN holds rows: the column that is the prompt.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="With rows: a system message for each request.")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            help="With rows: the column that is the custom_id. [default: number of the row]"
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="With rows: the most tokens of an answer.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=JSON",
            help="With rows: another member of each body, such as temperature=0.2; several times.",
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="The form of OUT. [default: by its ending, else jsonl]"),
    ] = None,
    order: Annotated[
        Order,
        typer.Option(
            help="Result lines as they came (done) or as in IN (input); tables are always as in IN."
        ),
    ] = Order.DONE,
    errors: Annotated[
        Path | None,
        typer.Option(
            help="Where failed lines go. [default: OUT.errors.jsonl beside a JSONL output, without "
            "its own ending; a table has a column for them]"
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="The most requests in flight. [default: 256]")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="The variable that holds the key of the model server.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="The file that holds the key of the model server.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, and replace what an earlier run left.")
    ] = False,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Keep the folder OUT.tidegate at the end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, for scripts.")
    ] = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Run a file of requests against a model server; the same command again continues."""
    flags = flags_of(
        assignments,
        gateway__url=upstream,
        gateway__api_key_env=api_key_env,
        gateway__api_key_file=api_key_file,
        gateway__concurrency__max=concurrency,
    )
    if concurrency is not None and concurrency > IN_FLIGHT_DEFAULT:
        flags.setdefault("processor.valves.in_flight_max", concurrency)
    prompting = Prompting(
        template=prompt_template,
        column=column,
        system=system,
        id_column=id_column,
        max_tokens=max_tokens,
        parameters=_parameters(param or ()),
    )
    job = Job(
        source=source,
        target=output,
        errors=errors,
        endpoint=None if endpoint is None else endpoint_of(endpoint),
        model=model,
        prompting=None if prompt_template is None and column is None else prompting,
        order=order,
        form=form or form_of(output),
        keep_state=keep_state,
        restart=restart,
    )
    _check_rows_flags(job, prompting)
    settings = _settings(config, flags)
    outcome, seconds = _ended(settings, job, quiet=quiet)
    for line in told(outcome, job):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(summary(outcome, job, seconds)))
    sys.exit(status(outcome))


def status(outcome: Outcome) -> int:
    """Return the exit status that tells how a run ended."""
    if outcome.finished is not None and outcome.finished.failed:
        return SOME_FAILED
    return STATUSES[outcome.end]


def summary(outcome: Outcome, job: Job, seconds: float) -> dict[str, object]:
    """Return what `--json` prints."""
    counts = None if outcome.batch is None else outcome.batch.counts
    usage = None if outcome.batch is None else outcome.batch.usage
    told_counts = outcome.finished or counts
    tokens = outcome.finished or usage
    return {
        "status": outcome.end.value,
        "total": told_counts.total if told_counts else 0,
        "completed": told_counts.completed if told_counts else 0,
        "failed": told_counts.failed if told_counts else 0,
        "input_tokens": tokens.input_tokens if tokens else 0,
        "output_tokens": tokens.output_tokens if tokens else 0,
        "seconds": round(seconds, 3),
        "output": str(job.target) if outcome.finished else None,
        "errors": outcome.finished.errors if outcome.finished else None,
        "problems": [
            {"line": problem.line, "code": problem.code, "message": problem.message}
            for problem in outcome.problems
        ],
    }


def _settings(config: Path | None, flags: dict[str, object]) -> Settings:
    settings = load(file=config, flags=flags).settings
    if settings.gateway is None and not settings.model_gateways:
        raise SettingsInvalid(
            "No model server is named: give its base URL, for example "
            "--upstream http://127.0.0.1:8001."
        )
    # Progress is for the eye; the log of a server beside it would tear it apart.
    configure(settings.logs.format, level="error")
    return settings


def _ended(settings: Settings, job: Job, *, quiet: bool) -> tuple[Outcome, float]:
    with make_view(job, quiet=quiet) as view:
        try:
            outcome = uvloop.run(run_offline(settings, job, view))
        except Refused as refused:
            raise SettingsInvalid(str(refused)) from refused
        except BaseExceptionGroup as group:
            message = explanation(group)
            if message is None:
                raise
            raise TidegateError(
                f"{message} What is done is kept: run the same command again to go on."
            ) from group
    return outcome, view.elapsed


def _check_rows_flags(job: Job, prompting: Prompting) -> None:
    if job.prompting is None and prompting != Prompting():
        raise SettingsInvalid(
            "--system, --id-column, --max-tokens and --param are for rows: give --prompt-template "
            "or --column with them."
        )


def _parameters(given: Sequence[str]) -> dict[str, object]:
    """Return further members of a body; what is no JSON is taken as text."""
    found: dict[str, object] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise SettingsInvalid(f"--param {item} must have the form KEY=JSON.")
        if name in found:
            raise SettingsInvalid(f"--param {name} is given twice.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
