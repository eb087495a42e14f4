"""S1: many seeded lives of a server. A failure names its seed and how to repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.hub import Channel
from broker.protocol import StreamPosition
from broker.sessions import recovery, session, subscriptions
from tests.conftest import ErrorLog
from tests.sim.world import live


@pytest.fixture(autouse=True)
def _failing_engine(error_log: ErrorLog) -> None:
    error_log.expect("the engine failed an API call")


@pytest.mark.parametrize("batch", range(10))
def test_no_life_breaks_a_promise(batch: int) -> None:
    for seed in range(batch * 30, batch * 30 + 30):
        _live(seed)


@pytest.mark.long
@pytest.mark.parametrize("batch", range(50))
def test_no_life_of_many_breaks_a_promise(batch: int) -> None:
    for seed in range(1000 + batch * 100, 1000 + batch * 100 + 100):
        _live(seed)


def _live(seed: int) -> None:
    try:
        live(seed)
    except BaseException as failure:
        failure.add_note(f'seed {seed}: python -c "from tests.sim.world import live; live({seed})"')
        raise


# ---- bugs planted on purpose: the simulation has to find each ------------------------------------------------------


def _forgets_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "collected", lambda self, sub: [])


def _goes_live_late(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Channel.go_live

    def go_live(self: Channel, sub: Any, position: Any) -> None:
        original(self, sub, position)
        self._exit(sub)

    monkeypatch.setattr(Channel, "go_live", go_live)


def _keeps_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(read: Any, top: Any, collected: Any) -> Any:
        last = collected[-1].offset if collected else top.offset
        return [*read, *collected], StreamPosition(max(last, top.offset), top.epoch)

    monkeypatch.setattr(recovery, "merge", merge)


def _leaves_presence_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(*_: object) -> None:
        """Nothing."""

    monkeypatch.setattr(subscriptions, "forget", forget)


def _stays_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.Session, "peer_gone", lambda self: None)


@pytest.mark.parametrize(
    "plant",
    [
        _forgets_what_came_meanwhile,
        _goes_live_late,
        _keeps_doubles,
        _leaves_presence_behind,
        _stays_in_the_registry,
    ],
)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(200):
        try:
            live(seed)
        except BaseException:
            return
    pytest.fail("200 lives, and nothing was noticed")
