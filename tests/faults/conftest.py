"""Attacks need a real daemon: the fixture of the other tests with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import broker_process

__all__ = ["broker_process"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
