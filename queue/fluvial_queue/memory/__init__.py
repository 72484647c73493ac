"""The store in memory: for tests, the test kit, and `memory://`."""

from fluvial_queue.memory.store import MemoryStore

__all__ = ["MemoryStore"]
