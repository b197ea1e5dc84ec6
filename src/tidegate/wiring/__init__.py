"""The only place that names concrete back-ends: it builds each process, and closes it in reverse.

`rooms` makes the parts; `serving`, `processing`, `collecting` and `offline` put them together to
processes.
"""

from tidegate.wiring.collecting import run_collection
from tidegate.wiring.looking import look_at_storage, opened_upstreams
from tidegate.wiring.offline import run_offline
from tidegate.wiring.processing import Processing, run_processor
from tidegate.wiring.rooms import SCRATCH_FOLDER, make_directories
from tidegate.wiring.serving import Running, run_service

__all__ = [
    "SCRATCH_FOLDER",
    "Processing",
    "Running",
    "look_at_storage",
    "make_directories",
    "opened_upstreams",
    "run_collection",
    "run_offline",
    "run_processor",
    "run_service",
]
