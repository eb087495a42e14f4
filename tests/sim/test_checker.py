"""The checker itself: every kind of broken log must be caught, and a good one must pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.checker import Checker, Place, View, Violation


def published(count: int = 6) -> Checker:
    checker = Checker()
    for offset in range(1, count + 1):
        checker.attempted("a", f"p{offset}")
        checker.acknowledged("a", f"p{offset}", Place("E", offset))
    return checker


def pub(offset: int, id: str = "") -> dict[str, Any]:
    return {"offset": offset, "data": id or f"p{offset}"}


def live(checker: Checker, at: int = 0) -> View:
    view = View(checker, "a")
    view.subscribed({"epoch": "E", "offset": at})
    return view


def push_all(view: View, pushes: list[dict[str, Any]]) -> None:
    for each in pushes:
        view.pushed(each)


def test_a_good_log_passes() -> None:
    view = live(published(), 2)
    view.pushed(pub(3))
    view.ended()
    view.subscribed({"epoch": "E", "offset": 3, "recovered": True, "publications": [pub(4), pub(5)]})
    view.pushed(pub(6))
    view.finish()


@pytest.mark.parametrize(
    "pushes",
    [
        [pub(2)],
        [pub(1), pub(3)],
        [pub(1), pub(1)],
        [pub(1), pub(3), pub(2)],
        [pub(1), pub(2, "p9")],
        [pub(1), pub(2, "p3")],
    ],
    ids=["first dropped", "dropped", "doubled", "swapped", "from nowhere", "forked"],
)
def test_broken_pushes_are_caught(pushes: list[dict[str, Any]]) -> None:
    view = live(published())
    with pytest.raises(Violation):
        push_all(view, pushes)


@pytest.mark.parametrize(
    "answer",
    [
        {"epoch": "E", "offset": 2, "recovered": True, "publications": [pub(4)]},
        {"epoch": "E", "offset": 3, "recovered": True, "publications": []},
        {"epoch": "F", "offset": 2, "recovered": True, "publications": []},
        {"epoch": "E", "offset": 6, "publications": [pub(3)]},
    ],
    ids=["a hole", "another start", "another epoch", "not recovered, but something"],
)
def test_broken_recoveries_are_caught(answer: dict[str, Any]) -> None:
    view = live(published(), 2)
    view.ended()
    with pytest.raises(Violation):
        view.subscribed(answer)


def test_a_subscriber_that_is_left_behind_is_caught() -> None:
    view = live(published(), 5)
    with pytest.raises(Violation):
        view.finish()


def test_a_push_from_another_channel_is_caught() -> None:
    checker = published()
    checker.attempted("b", "q")
    with pytest.raises(Violation):
        live(checker).pushed(pub(1, "q"))


def test_a_push_after_the_end_is_caught() -> None:
    view = live(published())
    view.ended()
    with pytest.raises(Violation):
        view.pushed(pub(1))


def test_an_acknowledgement_that_two_publishers_got_is_caught() -> None:
    checker = published()
    checker.attempted("a", "other")
    with pytest.raises(Violation):
        checker.acknowledged("a", "other", Place("E", 3))
