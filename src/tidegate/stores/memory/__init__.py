"""A ledger in the memory of one process: for tests, simulations and trials."""

from tidegate.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
