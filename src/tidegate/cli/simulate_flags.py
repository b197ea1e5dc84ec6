"""The flags of `tidegate simulate`, most of them in the words of vLLM's engine arguments."""

from pathlib import Path
from typing import Annotated

import typer

Port = Annotated[
    int, typer.Option(min=0, max=65_535, help="The port on 127.0.0.1; 0 takes any free one.")
]
Model = Annotated[
    list[str] | None, typer.Option(help="A model that it serves; may be given several times.")
]
ServedModelName = Annotated[
    list[str] | None,
    typer.Option(help="A name in place of those of --model; may be given several times."),
]
PresetName = Annotated[
    str, typer.Option("--preset", help="The model and the GPU that it behaves like.")
]
CostCsv = Annotated[Path | None, typer.Option(help="Measured steps, to fit the time of a step to.")]
TimeFactor = Annotated[float, typer.Option(help="How many times as long every step takes.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="Tokens of a request, prompt and output together.")
]
MaxNumSeqs = Annotated[int, typer.Option(help="Sequences that run at once.")]
MaxNumBatchedTokens = Annotated[int | None, typer.Option(help="Tokens that one step computes.")]
BlockSize = Annotated[int, typer.Option(help="Tokens of a block of keys and values.")]
NumGpuBlocks = Annotated[
    int | None, typer.Option(help="Blocks of keys and values; else what the preset's GPU has.")
]
SchedulingPolicy = Annotated[
    str, typer.Option(help="Who leaves the queue first: fcfs or priority.")
]
NoPrefixCaching = Annotated[
    bool, typer.Option("--no-prefix-caching", help="Compute every prompt in full.")
]
MaxNumQueuedReqs = Annotated[
    int | None, typer.Option(help="Sequences that wait or run; more are refused with 503.")
]
MaxNumQueuedTokens = Annotated[
    int | None, typer.Option(help="Prompt tokens that wait; more are refused with 503.")
]
InFlightMax = Annotated[
    int | None, typer.Option(help="Requests at once; more are refused with 429.")
]
OutputTokens = Annotated[
    int, typer.Option(help="The median length of answers that nothing bounds.")
]
Seed = Annotated[int, typer.Option(help="The same seed and request, the same answer.")]
Latency = Annotated[float, typer.Option(help="Seconds before the engine sees a request.")]
TokenLatency = Annotated[
    float, typer.Option(help="Seconds of each step, in place of the preset's law.")
]
KvTransferSeconds = Annotated[
    float, typer.Option(help="Seconds that a remote prefill takes to come over.")
]
KvTransferTokenSeconds = Annotated[
    float, typer.Option(help="The same, for each token of the prompt.")
]
StartupSeconds = Annotated[
    float, typer.Option(help="Seconds for which it answers 503 after its start.")
]
ApiKey = Annotated[
    list[str] | None, typer.Option(help="A key that requests must carry; may be repeated.")
]
Faults = Annotated[Path | None, typer.Option(help="A YAML file of faults by the clock.")]
EnableLora = Annotated[
    bool, typer.Option("--enable-lora", help="Take LoRA adapters, and let them be loaded live.")
]
LoraModules = Annotated[
    list[str] | None,
    typer.Option(help="An adapter to begin with, as name=path or JSON; may be repeated."),
]
MaxLoras = Annotated[int, typer.Option(help="Adapters that run at once.")]
EnableSleepMode = Annotated[
    bool, typer.Option("--enable-sleep-mode", help="Offer /sleep, /wake_up and /is_sleeping.")
]
KvEvents = Annotated[
    str | None,
    typer.Option(
        "--kv-events-config", help="The destination of prefix-cache events, in vLLM's JSON form."
    ),
]
Fake = Annotated[
    str | None,
    typer.Option("--fake-metrics", help="Metrics to report in place of the real ones, as JSON."),
]
