from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker.config import configure
from broker.workers import worker_count
from broker.workers.cores import usable_cores


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group two levels below the root, on a machine of eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    folder = tmp_path / "system.slice" / "broker.service"
    folder.mkdir(parents=True)
    (tmp_path / "membership").write_text("1:cpu:/old\n0::/system.slice/broker.service\n")
    return folder


@pytest.mark.parametrize(
    ("ours", "above", "cores"),
    [
        (None, None, 8),
        ("max 100000", "max 100000", 8),
        ("200000 100000", None, 2),
        ("150000 100000", None, 2),
        ("10000 100000", None, 1),
        ("max 100000", "300000 100000", 3),
        ("400000 100000", "300000 100000", 3),
        ("1600000 100000", None, 8),
        ("nonsense", "1 0", 8),
    ],
)
def test_a_quota_bounds_the_cores(group: Path, tmp_path: Path, ours: str | None, above: str | None, cores: int) -> None:
    for folder, text in ((group, ours), (group.parent, above)):
        if text is not None:
            (folder / "cpu.max").write_text(text + "\n")
    assert usable_cores(tmp_path, tmp_path / "membership") == cores


def test_without_control_groups_all_cores_count(group: Path, tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "nothing") == 8
    (tmp_path / "membership").write_text("4:cpu:/old\n")
    assert usable_cores(tmp_path, tmp_path / "membership") == 8


def test_as_many_as_were_asked_for() -> None:
    redis = {"engine": {"type": "redis"}}
    assert worker_count(configure({})) == 1
    assert worker_count(configure(redis | {"workers": 3})) == 3
    assert worker_count(configure(redis | {"workers": "3"})) == 3
    assert worker_count(configure(redis | {"workers": "auto"})) == usable_cores()
    assert worker_count(configure({"workers": "auto"})) == 1
