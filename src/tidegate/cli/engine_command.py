"""`tidegate engine`: a small real model on this machine."""

from typing import Annotated

import typer


def engine(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 takes any free one.")] = 8001,
    model_name: Annotated[
        str, typer.Option(help="The name under which the model answers.")
    ] = "smollm2-135m",
) -> None:
    """Serve SmolLM2-135M by llama.cpp on 127.0.0.1; needs the optional engine packages."""
    from tidegate.cli.engine import run_engine  # noqa: PLC0415 -- lazy

    run_engine(port=port, model_name=model_name)
