"""`tidegate simulate`: a model server that behaves like vLLM, without a model or a GPU."""

import csv
import gc
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.clock import SystemClock
from tidegate.runtime.services import Stops, run_together
from tidegate.runtime.web import address_of, bind, raise_open_files
from tidegate.simulator.engine.cost import Cost, Measured, fit
from tidegate.simulator.engine.presets import preset
from tidegate.simulator.engine.settings import EngineSettings, Policy
from tidegate.simulator.schedule import Plan, plan_from_file
from tidegate.simulator.serving import SimulatorServer
from tidegate.simulator.settings import SimulatorSettings

COLUMNS = ("prefill_tokens", "decode_seqs", "context_tokens", "seconds")


def simulate(  # noqa: PLR0913 - one parameter for each flag
    *,
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 takes any free one.")] = 8001,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that it serves; may be given several times.")
    ] = None,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(help="A name in place of those of --model; may be given several times."),
    ] = None,
    preset_name: Annotated[
        str, typer.Option("--preset", help="The model and the GPU that it behaves like.")
    ] = "instant",
    cost_csv: Annotated[
        Path | None, typer.Option(help="Measured steps, to fit the time of a step to.")
    ] = None,
    time_factor: Annotated[
        float, typer.Option(help="How many times as long every step takes.")
    ] = 1.0,
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of a request, prompt and output together.")
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Sequences that run at once.")] = 256,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Tokens that one step computes.")
    ] = None,
    block_size: Annotated[int, typer.Option(help="Tokens of a block of keys and values.")] = 16,
    num_gpu_blocks: Annotated[
        int | None, typer.Option(help="Blocks of keys and values; else what the preset's GPU has.")
    ] = None,
    scheduling_policy: Annotated[
        str, typer.Option(help="Who leaves the queue first: fcfs or priority.")
    ] = "fcfs",
    no_prefix_caching: Annotated[
        bool, typer.Option("--no-prefix-caching", help="Compute every prompt anew.")
    ] = False,
    max_num_queued_reqs: Annotated[
        int | None, typer.Option(help="Sequences that wait or run; more are refused with 503.")
    ] = None,
    max_num_queued_tokens: Annotated[
        int | None, typer.Option(help="Prompt tokens that wait; more are refused with 503.")
    ] = None,
    in_flight_max: Annotated[
        int | None, typer.Option(help="Requests at once; more are refused with 429.")
    ] = None,
    output_tokens: Annotated[
        int, typer.Option(help="The median length of answers that nothing bounds.")
    ] = 16,
    seed: Annotated[int, typer.Option(help="The same seed and request, the same answer.")] = 0,
    latency: Annotated[float, typer.Option(help="Seconds before the engine sees a request.")] = 0.0,
    token_latency: Annotated[
        float, typer.Option(help="Seconds of each step, in place of the preset's law.")
    ] = 0.0,
    kv_transfer_seconds: Annotated[
        float, typer.Option(help="Seconds that a remote prefill takes to come over.")
    ] = 0.0,
    kv_transfer_token_seconds: Annotated[
        float, typer.Option(help="The same, for each token of the prompt.")
    ] = 0.0,
    startup_seconds: Annotated[
        float, typer.Option(help="Seconds for which it answers 503 after its start.")
    ] = 0.0,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that requests must carry; may be repeated.")
    ] = None,
    faults: Annotated[Path | None, typer.Option(help="A YAML file of faults by the clock.")] = None,
) -> None:
    """Serve vLLM's API on 127.0.0.1 from a simulated engine that makes its answers up."""
    found = preset(preset_name)
    cost = _cost(found.cost, cost_csv, token_latency).scaled(time_factor)
    size = _size(
        EngineSettings(
            policy=_policy(scheduling_policy),
            prefix_caching=not no_prefix_caching,
            block_size=block_size,
            max_model_len=1,
        ),
        max_num_seqs,
        max_num_batched_tokens,
        found.kv_tokens // max(1, block_size) if num_gpu_blocks is None else num_gpu_blocks,
        max_model_len,
    )
    settings = SimulatorSettings(
        models=_names(served_model_name) or _names(model) or ("sim",),
        engine=size,
        cost=cost,
        output_tokens=output_tokens,
        seed=seed,
        latency_seconds=latency,
        transfer_seconds=kv_transfer_seconds,
        transfer_token_seconds=kv_transfer_token_seconds,
        in_flight_max=in_flight_max,
        queued_requests_max=max_num_queued_reqs,
        queued_tokens_max=max_num_queued_tokens,
        startup_seconds=startup_seconds,
        api_keys=tuple(api_key or ()),
        faults=Plan() if faults is None else plan_from_file(faults),
    )
    # What was made so far stays for good: the collector of cycles need not look at it again.
    gc.freeze()
    uvloop.run(_serve(settings, port))


def _names(given: list[str] | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given or ()))
    if not all(name.strip() for name in names):
        raise SettingsInvalid("--model is empty: give the name of a model, or leave the flag away.")
    return names


def _policy(name: str) -> Policy:
    try:
        return Policy(name)
    except ValueError as error:
        raise SettingsInvalid(f"--scheduling-policy is fcfs or priority, not '{name}'.") from error


def _size(
    base: EngineSettings,
    max_num_seqs: int,
    max_num_batched_tokens: int | None,
    blocks: int,
    max_model_len: int | None,
) -> EngineSettings:
    """Return the size of the engine; what is not said follows from the rest."""
    if blocks < 1:
        raise SettingsInvalid(f"--num-gpu-blocks must be at least 1, not {blocks}.")
    room = blocks * base.block_size
    usual = EngineSettings()
    return replace(
        base,
        kv_blocks=blocks,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=(
            max(usual.max_num_batched_tokens, max_num_seqs)
            if max_num_batched_tokens is None
            else max_num_batched_tokens
        ),
        max_model_len=min(usual.max_model_len, room) if max_model_len is None else max_model_len,
    )


def _cost(cost: Cost, table: Path | None, token_latency: float) -> Cost:
    if token_latency < 0:
        raise SettingsInvalid(f"--token-latency can't be {token_latency:g}.")
    if table is not None and token_latency:
        raise SettingsInvalid("Give --cost-csv or --token-latency, not both.")
    if table is not None:
        return fit(_measured(table))
    if token_latency:
        return Cost.of_seconds(
            fixed=token_latency, prefill_token=0.0, decode_seq=0.0, context_token=0.0
        )
    return cost


def _measured(table: Path) -> list[Measured]:
    """Return the steps of a CSV file with the columns of `COLUMNS`."""
    try:
        with table.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        return [
            Measured(
                prefill_tokens=int(row["prefill_tokens"]),
                decode_seqs=int(row["decode_seqs"]),
                context_tokens=int(row["context_tokens"]),
                seconds=float(row["seconds"]),
            )
            for row in rows
        ]
    except OSError as error:
        raise SettingsInvalid(f"--cost-csv: can't read {table}: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise SettingsInvalid(
            f"--cost-csv: {table} needs the columns {', '.join(COLUMNS)}, and numbers in them."
        ) from error


async def _serve(settings: SimulatorSettings, port: int) -> None:
    raise_open_files()
    stops = Stops()
    with bind("127.0.0.1", port, "--port") as listener, stops.heard_from_signals():
        typer.echo(
            f"The simulator serves {', '.join(settings.models)} at {address_of(listener)}/v1"
        )
        server = SimulatorServer(settings, listener, wall=SystemClock())
        await run_together({"simulator": server}, {}, stops)
