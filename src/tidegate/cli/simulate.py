"""`tidegate simulate`: a model server that behaves like vLLM, without a model or a GPU."""

import csv
from dataclasses import replace
from pathlib import Path

import typer
import uvloop

from tidegate.cli import simulate_flags as flags
from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.server import address_of, bind
from tidegate.runtime.clock import SystemClock
from tidegate.runtime.interpreter import raise_open_file_limit, tune_gc
from tidegate.runtime.services import ShutdownRequest, run_together
from tidegate.simulator.engine.cost import Cost, Measured, fit
from tidegate.simulator.engine.presets import preset
from tidegate.simulator.engine.settings import EngineSettings, Policy
from tidegate.simulator.faults.schedule import FaultPlan, plan_from_file
from tidegate.simulator.kv_events.config import KvEventsConfig, kv_events_from
from tidegate.simulator.metrics.fake import fakes_from
from tidegate.simulator.server.models import AdapterFlag, adapter_from
from tidegate.simulator.server.service import SimulatorServer
from tidegate.simulator.settings import SimulatorSettings

COLUMNS = ("prefill_tokens", "decode_seqs", "context_tokens", "seconds")


def simulate(  # noqa: PLR0913 - one parameter for each flag
    *,
    port: flags.Port = 8001,
    model: flags.Model = None,
    served_model_name: flags.ServedModelName = None,
    preset_name: flags.PresetName = "instant",
    cost_csv: flags.CostCsv = None,
    time_factor: flags.TimeFactor = 1.0,
    max_model_len: flags.MaxModelLen = None,
    max_num_seqs: flags.MaxNumSeqs = 256,
    max_num_batched_tokens: flags.MaxNumBatchedTokens = None,
    block_size: flags.BlockSize = 16,
    num_gpu_blocks: flags.NumGpuBlocks = None,
    scheduling_policy: flags.SchedulingPolicy = "fcfs",
    no_prefix_caching: flags.NoPrefixCaching = False,
    max_num_queued_reqs: flags.MaxNumQueuedReqs = None,
    max_num_queued_tokens: flags.MaxNumQueuedTokens = None,
    in_flight_max: flags.InFlightMax = None,
    output_tokens: flags.OutputTokens = 16,
    seed: flags.Seed = 0,
    latency: flags.Latency = 0.0,
    token_latency: flags.TokenLatency = 0.0,
    kv_transfer_seconds: flags.KvTransferSeconds = 0.0,
    kv_transfer_token_seconds: flags.KvTransferTokenSeconds = 0.0,
    startup_seconds: flags.StartupSeconds = 0.0,
    api_key: flags.ApiKey = None,
    faults: flags.Faults = None,
    enable_lora: flags.EnableLora = False,
    lora_modules: flags.LoraModules = None,
    max_loras: flags.MaxLoras = 1,
    enable_sleep_mode: flags.EnableSleepMode = False,
    kv_events_config: flags.KvEvents = None,
    fake_metrics: flags.Fake = None,
) -> None:
    """Serve vLLM's API on 127.0.0.1 from a simulated engine that makes its answers up."""
    base = _base(scheduling_policy, block_size, max_loras, caches=not no_prefix_caching)
    blocks = num_gpu_blocks if num_gpu_blocks is not None else _blocks(preset_name, block_size)
    settings = SimulatorSettings(
        models=_names(served_model_name) or _names(model) or ("sim",),
        engine=_size(base, max_num_seqs, max_num_batched_tokens, blocks, max_model_len),
        cost=_cost(preset_name, cost_csv, token_latency).scaled(time_factor),
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
        faults=FaultPlan() if faults is None else plan_from_file(faults),
        adapters=_adapters(lora_modules, is_on=enable_lora),
        sleep_mode=enable_sleep_mode,
        kv_events=KvEventsConfig()
        if kv_events_config is None
        else kv_events_from(kv_events_config),
        fakes=None if fake_metrics is None else fakes_from(fake_metrics),
    )
    uvloop.run(_serve(settings, port))


def _names(given: list[str] | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given or ()))
    if not all(name.strip() for name in names):
        raise SettingsInvalid("--model is empty: give the name of a model, or leave the flag away.")
    return names


def _adapters(given: list[str] | None, *, is_on: bool) -> tuple[AdapterFlag, ...] | None:
    if given and not is_on:
        raise SettingsInvalid("--lora-modules needs --enable-lora.")
    return tuple(map(adapter_from, given or ())) if is_on else None


def _base(policy: str, block_size: int, max_loras: int, *, caches: bool) -> EngineSettings:
    """Return what does not follow from anything else."""
    return EngineSettings(
        policy=_policy(policy),
        prefix_caching=caches,
        block_size=block_size,
        max_model_len=1,
        max_loras=max_loras,
    )


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
    if max_num_batched_tokens is None:
        max_num_batched_tokens = max(usual.max_num_batched_tokens, max_num_seqs)
    return replace(
        base,
        kv_blocks=blocks,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=min(usual.max_model_len, room) if max_model_len is None else max_model_len,
    )


def _blocks(preset_name: str, block_size: int) -> int:
    return preset(preset_name).kv_tokens // max(1, block_size)


def _cost(preset_name: str, table: Path | None, token_latency: float) -> Cost:
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
    return preset(preset_name).cost


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
    raise_open_file_limit()
    tune_gc()
    stops = ShutdownRequest()
    with bind("127.0.0.1", port, "--port") as listener, stops.listen_to_signals():
        typer.echo(
            f"The simulator serves {', '.join(settings.models)} at {address_of(listener)}/v1"
        )
        server = SimulatorServer(settings, listener, wall=SystemClock())
        await run_together({"simulator": server}, {}, stops)
