"""Compiles the hot path where a wheel is built; all else of the package is in pyproject.toml.

`pip install .` compiles where a C compiler and the headers of Python are at hand (and mypy, where
there is no build isolation). Else it installs the same sources as they are: they do the same, only
slower. TIDEGATE_COMPILE=1 requires it, TIDEGATE_COMPILE=0 skips it. An editable install is
never compiled, or changes would not count.
"""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup  # first: it brings a distutils of its own
from setuptools.errors import CompileError, PlatformError

from distutils.ccompiler import new_compiler  # isort: skip
from distutils.sysconfig import customize_compiler  # isort: skip

# What each line of a batch passes through; `./run compiled` runs tests against them, compiled.
HOT = (
    "domain/retry",
    "endpoints/classify",
    "endpoints/endpoint",
    "endpoints/limiters/aimd",
    "planning/duplicate_ids",
    "planning/record_store",
    "planning/validate",
    "processor/committer",
    "processor/dispatch/attempt",
    "processor/dispatch/dispatcher",
    "processor/dispatch/open_batch",
    "processor/dispatch/open_shard",
    "processor/dispatch/quarantine",
    "processor/dispatch/settle",
    "processor/write_gate",
    "sorting/external_sort",
    "sorting/record_file",
    "sorting/sorted_runs",
    "upstreams/header_rules",
    "upstreams/http1/connection",
    "upstreams/http1/fast_path",
    "upstreams/http1/pool",
    "upstreams/http1/reply_waiter",
    "upstreams/http1/request_head",
    "upstreams/http1/upstream",
    "wire/jsonl",
    "wire/prompts",
    "wire/results",
)
INSIST, LEAVE_OUT = "1", "0"


def missing() -> str | None:
    """Return what to install before anything can be compiled here, or None."""
    try:
        import mypyc.build  # noqa: F401 - whether it is there: without build isolation it may not be
    except ImportError as error:
        return f"({error}): install mypy"
    compiler = new_compiler()
    customize_compiler(compiler)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "trial.c")
        source.write_text("#include <Python.h>\n")
        try:
            compiler.compile(
                [str(source)], output_dir=folder, include_dirs=[sysconfig.get_path("include")]
            )
        except (CompileError, PlatformError) as error:
            return f"({error}): install a C compiler and python3-dev"
    return None


def extensions() -> list[Extension]:
    """Return the compiled modules of a wheel."""
    wish = os.environ.get("TIDEGATE_COMPILE", "")
    if "bdist_wheel" not in sys.argv or wish == LEAVE_OUT:
        return []
    trouble = missing()
    if trouble is not None:
        text = f"The hot path can't be compiled {trouble}."
        if wish == INSIST:
            raise SystemExit(text)
        print(f"{text} It is installed as it is, and takes more CPU for each line.")
        return []
    from mypyc.build import mypycify

    paths = [f"src/tidegate/{name}.py" for name in HOT]
    made: list[Extension] = mypycify(paths, opt_level="3", debug_level="0", group_name="tidegate")
    return made


setup(ext_modules=extensions())
