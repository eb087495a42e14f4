"""What is wrong with a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

__all__ = ["ConfigError"]


@final
class ConfigError(Exception):
    """One line per bad key, each with its full path, and never with the value of a secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
