"""A run without a server: the real processor on a private ledger beside the output."""

import dataclasses
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import BinaryIO

from tidegate.application.context import Application
from tidegate.config import Settings
from tidegate.config.kinds import FILESYSTEM, SQLITE
from tidegate.offline.input import WINDOW_SECONDS
from tidegate.offline.job import OfflineJob
from tidegate.offline.progress import Progress
from tidegate.offline.run import OfflineRun, ProgressView, RunContext, RunOutcome
from tidegate.offline.state import RunState
from tidegate.runtime.services import ShutdownRequest
from tidegate.wiring.context import (
    SCRATCH_FOLDER,
    catalogue,
    make_processor,
    open_ports,
    open_upstreams,
    upstream_urls,
)

# An input of ours lies on this machine already: it need not be split as for an upload.
LINES_MAX = 10_000_000
INPUT_BYTES_MAX = 64 * 2**30
# The folder is locked against other runs, so a killed run resumes after this long.
LEASE_SECONDS = 5.0
# Lines of a shard that was lost twice run one at a time: small shards keep these few.
SHARD_LINES_MAX = 100


async def run_offline(settings: Settings, job: OfflineJob, view: ProgressView) -> RunOutcome:
    """Do a run, or go on with it, until its end or until signals stop it.

    Raises:
        TidegateError: it can't go on; the message says why.
        BaseExceptionGroup: the processor died; everything is closed by then.
    """
    stops = ShutdownRequest()

    @asynccontextmanager
    async def open_context(state: RunState, progress: Progress) -> AsyncIterator[RunContext]:
        private = private_settings(settings, state)
        scratch = private.data_dir / SCRATCH_FOLDER

        def open_spill_file() -> BinaryIO:
            return tempfile.TemporaryFile(dir=scratch, buffering=0)

        async with AsyncExitStack() as stack:
            ports = await open_ports(private, stack)
            endpoints = open_upstreams(private, stack)
            batch_api = Application(
                settings=private.batch_api,
                store=ports.store,
                blobs=ports.blobs,
                pubsub=ports.pubsub,
                models=catalogue(private, endpoints),
                clock=ports.clock,
                ids=ports.ids,
            )
            processor = make_processor(private, ports, endpoints, observer=progress)
            servers = [endpoint.upstream for endpoint in endpoints.values()]
            yield RunContext(
                app=batch_api,
                processor=processor,
                servers=dict(zip(upstream_urls(private), servers, strict=True)),
                open_spill_file=open_spill_file,
            )

    with stops.listen_to_signals():
        return await OfflineRun(job, stops, view, open_context).run()


def private_settings(settings: Settings, state: RunState) -> Settings:
    """Return the settings for a private ledger; those of model servers stay."""
    planning, claims = settings.processor.planning, settings.processor.claims
    processor = dataclasses.replace(
        settings.processor,
        planning=dataclasses.replace(
            planning,
            lines_max=max(planning.lines_max, LINES_MAX),
            shard_lines_max=min(planning.shard_lines_max, SHARD_LINES_MAX),
        ),
        claims=dataclasses.replace(
            claims,
            lease_seconds=min(claims.lease_seconds, LEASE_SECONDS),
            poll_seconds=min(claims.poll_seconds, LEASE_SECONDS / 3),
        ),
    )
    batch_api = dataclasses.replace(
        settings.batch_api,
        file_bytes_max=max(settings.batch_api.file_bytes_max, INPUT_BYTES_MAX),
        batch_file_expiry_seconds=None,
        output_expiry_seconds=None,
        window_seconds_max=max(settings.batch_api.window_seconds_max, WINDOW_SECONDS),
        early_results=True,
    )
    return dataclasses.replace(
        settings,
        data_dir=state.data,
        store=dataclasses.replace(settings.store, kind=SQLITE),
        blobs=dataclasses.replace(settings.blobs, kind=FILESYSTEM),
        processor=processor,
        batch_api=batch_api,
    )
