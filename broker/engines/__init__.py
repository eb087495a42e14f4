"""Engines: the hub's ports made real. Each passes `tests/contracts`."""

from broker.engines.memory import MemoryBroker, MemoryController, MemoryEngine, MemoryPresence, open_memory_engine
from broker.engines.opening import Opened, open_engine

__all__ = [
    "MemoryBroker",
    "MemoryController",
    "MemoryEngine",
    "MemoryPresence",
    "Opened",
    "open_engine",
    "open_memory_engine",
]
