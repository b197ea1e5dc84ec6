"""Composition roots: the only place that names concrete back-ends.

Each module builds one process and closes it in reverse order; `backends` and `context` make what
they share. Nothing is imported here, because the child process of a sandbox must start without API
and stores.
"""
