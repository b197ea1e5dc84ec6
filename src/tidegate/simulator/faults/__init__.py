"""Faults that the simulator injects: by a schedule, or as a request asks."""
