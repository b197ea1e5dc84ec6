"""`tidegate openapi`: the OpenAPI document of the API."""

import json

import typer

from tidegate.api.openapi import document
from tidegate.cli.settings_flags import Assignments, ConfigFile, flags_of
from tidegate.config import load


def openapi(config: ConfigFile = None, assignments: Assignments = None) -> None:
    """Print the OpenAPI document of the API.

    It is OpenAPI 3.1, and reflects the limits of these settings.
    """
    settings = load(file=config, flags=flags_of(assignments)).settings
    typer.echo(json.dumps(document(settings.api_settings()), indent=2))
