"""`tidegate run`: a batch from file to file, without a server."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer
import uvloop

from tidegate.cli import run_flags as flags
from tidegate.cli.exit_codes import ExitCode, failure_reason
from tidegate.cli.run_view import RunView, make_view, summary
from tidegate.cli.settings_flags import Assignments, ConfigFile, flags_of
from tidegate.config import Settings, load
from tidegate.domain.batch import Problem
from tidegate.domain.errors import Refused, SettingsInvalid, TidegateError
from tidegate.offline.job import OfflineJob, PromptOptions, ResultOrder, endpoint_of, file_format_of
from tidegate.offline.run import RunEnd, RunOutcome
from tidegate.telemetry.logs import configure
from tidegate.wiring.offline import run_offline

EXIT_CODES = {
    RunEnd.FINISHED: ExitCode.OK,
    RunEnd.INVALID: ExitCode.WRONG_SETTINGS,
    RunEnd.INTERRUPTED: ExitCode.INTERRUPTED,
}
IN_FLIGHT_DEFAULT = 256


def run(  # noqa: PLR0913 -- each parameter is one flag of the command line
    source: flags.Source,
    *,
    output: flags.Output,
    upstream: flags.Upstream = None,
    model: flags.Model = None,
    endpoint: flags.Endpoint = None,
    prompt_template: flags.PromptTemplate = None,
    column: flags.Column = None,
    system: flags.System = None,
    id_column: flags.IdColumn = None,
    max_tokens: flags.MaxTokens = None,
    param: flags.Parameters = None,
    output_format: flags.OutputFormat = None,
    order: flags.Order = ResultOrder.DONE,
    errors: flags.Errors = None,
    concurrency: flags.Concurrency = None,
    api_key_env: flags.KeyVariable = None,
    api_key_file: flags.KeyFile = None,
    restart: flags.Restart = False,
    keep_state: flags.KeepState = False,
    no_check: flags.NoCheck = False,
    quiet: flags.Quiet = False,
    as_json: flags.AsJson = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Run a file of requests against a model server; the same command again continues."""
    prompt_options = PromptOptions(
        template=prompt_template,
        column=column,
        system=system,
        id_column=id_column,
        max_tokens=max_tokens,
        parameters=_parameters(param or ()),
    )
    job = OfflineJob(
        source=source,
        target=output,
        errors=errors,
        endpoint=_endpoint(endpoint),
        model=model,
        prompt_options=_row_options(prompt_options),
        order=order,
        file_format=output_format or file_format_of(output),
        keep_state=keep_state,
        restart=restart,
        checks_server=not no_check,
    )
    named = flags_of(
        assignments,
        upstream__url=upstream,
        upstream__api_key_env=api_key_env,
        upstream__api_key_file=api_key_file,
        upstream__concurrency__max=concurrency,
    )
    _run_and_exit(job, _settings(config, named, concurrency), quiet=quiet, as_json=as_json)


def exit_code(outcome: RunOutcome) -> ExitCode:
    """Return the exit code for how a run ended."""
    if outcome.finished is not None and outcome.finished.failed:
        return ExitCode.FAILED
    return EXIT_CODES[outcome.end]


def json_summary(outcome: RunOutcome, job: OfflineJob, seconds: float) -> dict[str, object]:
    """Return what `--json` prints."""
    counts = None if outcome.batch is None else outcome.batch.counts
    usage = None if outcome.batch is None else outcome.batch.usage
    counted = outcome.finished or counts
    tokens = outcome.finished or usage
    return {
        "status": outcome.end.value,
        "total": counted.total if counted else 0,
        "completed": counted.completed if counted else 0,
        "failed": counted.failed if counted else 0,
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


def _settings(config: Path | None, named: dict[str, object], concurrency: int | None) -> Settings:
    if concurrency is not None and concurrency > IN_FLIGHT_DEFAULT:
        named.setdefault("processor.limits.in_flight_max", concurrency)
    settings = load(file=config, flags=named).settings
    if settings.upstream is None and not settings.upstreams:
        raise SettingsInvalid(
            "No model server is named: give its base URL, for example "
            "--upstream http://127.0.0.1:8001."
        )
    # Log lines of lower levels would break up the progress display.
    configure(settings.logs.format, level="error")
    return settings


def _run_and_exit(job: OfflineJob, settings: Settings, *, quiet: bool, as_json: bool) -> NoReturn:
    with make_view(job, quiet=quiet) as view:
        try:
            outcome = _outcome(job, settings, view)
        except Refused as refused:
            if as_json:
                problem = Problem(code=refused.code or "refused", message=refused.message)
                invalid = RunOutcome(end=RunEnd.INVALID, problems=(problem,))
                typer.echo(json.dumps(json_summary(invalid, job, view.elapsed)))
            raise SettingsInvalid(str(refused)) from refused
    for line in summary(outcome, job):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(json_summary(outcome, job, view.elapsed)))
    sys.exit(exit_code(outcome))


def _outcome(job: OfflineJob, settings: Settings, view: RunView) -> RunOutcome:
    try:
        return uvloop.run(run_offline(settings, job, view))
    except BaseExceptionGroup as group:
        message = failure_reason(group)
        if message is None:
            raise
        raise TidegateError(
            f"{message} Completed lines are kept: run the same command again to continue."
        ) from group


def _endpoint(text: str | None) -> str | None:
    try:
        return None if text is None else endpoint_of(text)
    except Refused as refused:
        raise SettingsInvalid(str(refused)) from refused


def _row_options(prompt_options: PromptOptions) -> PromptOptions | None:
    """Return how rows become requests; None if the input holds requests already."""
    if prompt_options.template is None and prompt_options.column is None:
        if prompt_options != PromptOptions():
            raise SettingsInvalid(
                "--system, --id-column, --max-tokens and --param are for rows: give "
                "--prompt-template or --column with them."
            )
        return None
    return prompt_options


def _parameters(given: Sequence[str]) -> dict[str, object]:
    """Return further members of a body; a value that is not JSON is taken as text."""
    found: dict[str, object] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise SettingsInvalid(f"--param {item} must have the form KEY=JSON.")
        if name in found:
            raise SettingsInvalid(f"--param {name} is given twice.")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found
