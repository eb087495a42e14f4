"""Engines: the hub's ports made real. Each passes `tests/contracts`."""

from broker.engines.memory import MemoryBroker, MemoryEngine, MemoryPresence, open_memory_engine

__all__ = ["MemoryBroker", "MemoryEngine", "MemoryPresence", "open_memory_engine"]
