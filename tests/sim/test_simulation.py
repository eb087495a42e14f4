"""S1: many seeded lives of a server. A failure names its seed and how to repeat it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.hub import Channel, Outbox, channel
from broker.hub.positions import PositionChecks
from broker.protocol import StreamPosition, codes
from broker.sessions import recovery, server_side, session, subscriptions, ticks
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


# ---- a seed is a life ------------------------------------------------------------------------------------------------

_DIGEST = "import sys; from tests.sim.test_simulation import digest; print(digest(range(4)))"


def digest(seeds: range) -> str:
    """What all clients of these lives saw, in short."""
    return hashlib.sha256("\n".join("\n".join(live(seed)) for seed in seeds).encode()).hexdigest()


def test_the_same_seed_is_the_same_life() -> None:
    """Also in another process, where texts hash differently: else no failure could be repeated."""
    here = digest(range(4))
    assert here == digest(range(4))
    assert here != digest(range(4, 8))
    for hash_seed in ("0", "1"):
        there = subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        )
        assert there.stdout.decode().split()[-1] == here


# ---- bugs planted on purpose: the simulation has to find each --------------------------------------------------------


def _skips_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(read: Any, top: Any, collected: Any) -> Any:
        last = collected[-1].offset if collected else top.offset
        return list(read), StreamPosition(max(last, top.offset), top.epoch)

    monkeypatch.setattr(recovery, "merge", merge)


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


def _puts_presence_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refresh(client: Any, channel: str, sub: Any) -> None:
        await client.context.node.add_presence(channel, client.client_id, client.client_info(channel))

    monkeypatch.setattr(ticks, "_refresh_presence", refresh)


def _stays_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.Session, "peer_gone", lambda self: None)


def _keeps_gaps_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "_lose_all_positioned", lambda self: None)


def _checks_no_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(*_: object) -> None:
        """Nothing."""

    monkeypatch.setattr(ticks, "_check_position", check)


def _uncorks_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Outbox.uncork

    def uncork(self: Outbox) -> None:
        if self._held:
            self._held.reverse()
        original(self)

    monkeypatch.setattr(Outbox, "uncork", uncork)


def _goes_on_with_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer gets patches to what it never had."""
    original = Channel._enter

    def enter(self: Channel, sub: Any) -> None:
        patches = [key for key in self.groups if key == sub.key._replace(delta=key.delta) and key != sub.key]
        if patches:
            sub.key = patches[0]
        original(self, sub)

    monkeypatch.setattr(Channel, "_enter", enter)


def _hears_of_no_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose deliveries were interrupted, and who never looks by itself, does not know what it missed."""
    _checks_no_positions(monkeypatch)
    monkeypatch.setattr(PositionChecks, "add", lambda self, names: None)


def _takes_any_epoch_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def follows(position: Any, event: Any) -> bool:
        return bool(event.pub.offset == position.offset + 1)

    monkeypatch.setattr(channel, "_follows", follows)


def _lets_those_who_do_not_read_miss_something(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Outbox.offer

    def offer(self: Outbox, data: bytes) -> None:
        if self.queued < 500:
            original(self, data)

    monkeypatch.setattr(Outbox, "offer", offer)


def _goes_on_after_the_server_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def insufficient(client: Any, name: str, sub: Any) -> None:
        """A subscription of the server's is left as it is."""
        if not sub.server_side:
            await server_side.end(client, name, sub, codes.INSUFFICIENT)

    monkeypatch.setattr(server_side, "insufficient", insufficient)


CUT = {"eager": False, "late": 0.4, "losing": 0, "cutting": True, "failing": 0}
LOSING = {"eager": False, "late": 0.4, "losing": 12}
SLOW = {"eager": False, "delay": 0.5, "failing": 0}


@pytest.mark.parametrize(
    ("plant", "always"),
    [
        (_skips_what_came_meanwhile, {}),
        (_goes_live_late, {}),
        (_keeps_doubles, {}),
        (_leaves_presence_behind, {}),
        (_puts_presence_back, SLOW),
        (_stays_in_the_registry, {}),
        (_keeps_gaps_to_itself, LOSING),
        (_checks_no_positions, LOSING),
        (_uncorks_backwards, {"eager": True}),
        (_goes_on_with_patches, {}),
        (_hears_of_no_break, CUT),
        (_takes_any_epoch_for_its_own, {"forgetting": True}),
        (_lets_those_who_do_not_read_miss_something, {"slow": True}),
        (_goes_on_after_the_server_ended_it, LOSING | {"nodes": 3}),
    ],
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], always: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the kind of life where it could show."""
    plant(monkeypatch)
    for seed in range(300):
        try:
            live(seed, always=always)
        except BaseException:
            return
    pytest.fail("300 lives, and nothing was noticed")
