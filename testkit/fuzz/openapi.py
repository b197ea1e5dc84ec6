"""Random requests after the API's own OpenAPI document, made by schemathesis, for tests and bench.

Every answer must have a status, a content type and a shape that the document names, and none may be
a 5xx. Whether a random body is accepted is not judged: a batch file must be JSON Lines and a window
has bounds, which no schema says.
"""

import subprocess
import sys
from pathlib import Path

from testkit.processes import environment, run_to_end

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def fuzz_api(
    folder: Path, url: str, *, seed: int, examples: int, seconds_max: float, key: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Fuzz the API at `url`; status 0 means that nothing was found, and the output says the rest.

    Args:
        folder: where the document, and what the tool leaves, are put.
        url: the API, without /v1.
        seed: which requests are made.
        examples: how many for each operation and kind of test.
        seconds_max: after how long it is given up, which is an error.
        key: an API key to send.
    """
    path = folder / "openapi.json"
    path.write_text(run_to_end("openapi").stdout)
    words = [
        *(str(Path(sys.executable).with_name("st")), "run", str(path), "--url", url),
        *("--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", str(seed)),
        *("--generation-database", "none", "--no-color"),
        *(() if key is None else ("--header", f"Authorization: Bearer {key}")),
    ]
    return subprocess.run(  # noqa: S603 -- a tool of ours against a server of ours
        words,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds_max,
    )
