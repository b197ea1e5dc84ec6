"""What our process spends CPU on while it dispatches: a flame graph and tables."""

import statistics
import sys
from pathlib import Path

from _dispatch_job import Job
from _dispatch_ours import run_batch, serving
from _fast_upstream import fast_upstream
from _flame import Stack, flame_graph, stacks, tables
from _machine import Cores, interpreted

SAMPLER = (sys.executable, "-P", str(Path(__file__).parent / "_sampled.py"))


def profile(job: Job, cores: Cores, batches: int, target: Path) -> list[Path]:
    """Run some batches one after the other under the sampler; write an SVG and a text beside it.

    Samples from outside of dispatch (start, upload, planning) are left out.
    """
    written, costs, samples = job.folder / "stacks.txt", [], list[Stack]()
    marks: list[int] = []

    def mark() -> None:
        marks.append(written.stat().st_size)

    command = (*SAMPLER, str(written))
    # Compiled functions leave no frames to be sampled: what is shown is the same, interpreted.
    env = interpreted()
    with (
        fast_upstream(job.folder, cores.others) as upstream,
        serving(
            job.folder / "profiled",
            upstream,
            job.concurrency,
            cores.measured,
            command=command,
            env=env,
        ) as server,
    ):
        for _ in range(batches):
            costs.append(run_batch(server, upstream, job, on_phase=mark))
            planned, ended = marks[-2:]
            with written.open("rb") as file:
                file.seek(planned)
                samples += stacks(file.read(ended - planned).decode(errors="replace"))
    cpu_us = statistics.median(cost.cpu_us_per_request for cost in costs)
    in_kernel = 100 * statistics.median(cost.system_share for cost in costs)
    title = (
        f"tidegate serve, not compiled, {job.name}: {cpu_us:.1f} µs of CPU for each line from its "
        f"shard to its durable result, {in_kernel:.0f} % of it in the kernel"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(flame_graph(samples, title))
    text = target.with_suffix(".txt")
    text.write_text(f"{title}\n\n{tables(samples, cpu_us)}")
    return [target, text]
