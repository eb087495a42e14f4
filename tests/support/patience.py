"""How long tests wait for what other processes do: nobody tells us, and a machine may be busy with something else."""

from __future__ import annotations

from typing import Final

__all__ = ["PATIENCE"]

PATIENCE: Final = 60.0
"""Seconds in which everything happens that happens at all; what works takes none of them."""
