"""A folder to load configurations from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import attrs
import pytest

from broker.config import ConfigError, Loaded, Sources, load


@final
@attrs.frozen
class Scene:
    """Loads what a test writes, and nothing of the environment that the test runs in."""

    folder: Path

    def sources(
        self,
        file: Mapping[str, Any] | str | None = None,
        *,
        name: str = "config.json",
        env: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        dotenv: str = "",
        development: bool = False,
    ) -> Sources:
        path = self.folder / name
        if file is not None:
            path.write_text(file if isinstance(file, str) else json.dumps(file))
        if dotenv:
            (self.folder / ".env").write_text(dotenv)
        return Sources(
            file=path,
            flags=flags or {},
            environ=env or {},
            dotenv=self.folder / ".env",
            development=development,
        )

    def load(self, file: Mapping[str, Any] | str | None = None, **sources: Any) -> Loaded:
        return load(self.sources(file, **sources))

    def problems(self, file: Mapping[str, Any] | str | None = None, **sources: Any) -> list[str]:
        with pytest.raises(ConfigError) as error:
            self.load(file, **sources)
        return list(error.value.problems)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)
