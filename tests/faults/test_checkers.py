"""The checkers themselves: every kind of broken log must be caught, and a good one must pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.checkers import Checker, Place, PresenceChecker, Told, View, Violation

Pub = tuple[int, str]


def published(count: int = 6) -> Checker:
    """Publications p1 to p6; those with an even offset are tagged."""
    checker = Checker()
    for offset in range(1, count + 1):
        checker.attempted("a", f"p{offset}", {"t": str(1 - offset % 2)})
        checker.acknowledged("a", f"p{offset}", Place("E", offset))
    return checker


def pub(offset: int, id: str = "") -> Pub:
    return offset, id or f"p{offset}"


def live(checker: Checker, at: int = 0, *, tagged: bool = False) -> View:
    view = View(checker, "a")
    if tagged:
        view.wanted = lambda tags: tags.get("t") == "1"
    view.subscribed({"epoch": "E", "offset": at})
    return view


def push_all(view: View, pushes: list[Pub]) -> None:
    for each in pushes:
        view.pushed(*each)


def test_a_good_log_passes() -> None:
    checker = published()
    view = live(checker, 2)
    view.pushed(*pub(3))
    view.ended()
    view.subscribed({"epoch": "E", "offset": 3, "recovered": True, "publications": [pub(4), pub(5)]})
    view.pushed(*pub(6))
    view.finish()
    checker.finish()


def test_a_publication_that_was_made_twice_is_noticed_where_it_may_not_be() -> None:
    for once in (True, False):
        checker = Checker(once=once)
        checker.attempted("a", "p1")
        checker.acknowledged("a", "p1", Place("E", 1))
        if once:
            with pytest.raises(Violation, match="is at"):
                checker.acknowledged("a", "p1", Place("E", 2))
        else:
            checker.acknowledged("a", "p1", Place("E", 2))


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
def test_broken_pushes_are_caught(pushes: list[Pub]) -> None:
    view = live(published())
    with pytest.raises(Violation):
        push_all(view, pushes)


@pytest.mark.parametrize(
    "answer",
    [
        {"epoch": "E", "offset": 2, "recovered": True, "publications": [pub(4)]},
        {"epoch": "E", "offset": 2, "recovered": True, "publications": [pub(3), pub(3)]},
        {"epoch": "E", "offset": 2, "recovered": True, "publications": [pub(4), pub(3)]},
        {"epoch": "E", "offset": 3, "recovered": True, "publications": []},
        {"epoch": "F", "offset": 2, "recovered": True, "publications": []},
        {"epoch": "E", "offset": 6, "publications": [pub(3)]},
    ],
    ids=["a hole", "doubled", "swapped", "another start", "another epoch", "not recovered, but something"],
)
def test_broken_recoveries_are_caught(answer: dict[str, Any]) -> None:
    view = live(published(), 2)
    view.ended()
    with pytest.raises(Violation):
        view.subscribed(answer)


def test_a_log_that_forked_between_two_subscribers_is_caught() -> None:
    """Each sees a log that is whole; they are not the same."""
    checker = Checker()
    for id in ("old", "new"):
        checker.attempted("a", id)
    live(checker).pushed(1, "old")
    with pytest.raises(Violation):
        live(checker).pushed(1, "new")


def test_a_subscriber_that_is_left_behind_is_caught() -> None:
    view = live(published(), 5)
    with pytest.raises(Violation):
        view.finish()


def test_a_push_from_another_channel_is_caught() -> None:
    checker = published()
    checker.attempted("b", "q")
    with pytest.raises(Violation):
        live(checker).pushed(1, "q")


def test_a_push_after_the_end_is_caught() -> None:
    view = live(published())
    view.ended()
    with pytest.raises(Violation):
        view.pushed(*pub(1))


def test_an_acknowledgement_that_two_publishers_got_is_caught() -> None:
    checker = published()
    checker.attempted("a", "other")
    with pytest.raises(Violation):
        checker.acknowledged("a", "other", Place("E", 3))


# ---- filters ---------------------------------------------------------------------------------------------------------


def test_what_a_filter_leaves_out_is_not_missed() -> None:
    checker = published()
    view = live(checker, tagged=True)
    push_all(view, [pub(2), pub(4), pub(6)])
    view.finish()
    checker.finish()


@pytest.mark.parametrize("pushes", [[pub(2), pub(6)], [pub(2), pub(4)]], ids=["between", "at the end"])
def test_what_a_filter_lets_through_is_missed(pushes: list[Pub]) -> None:
    checker = published()
    view = live(checker, tagged=True)
    push_all(view, pushes)
    view.finish()
    with pytest.raises(Violation):
        checker.finish()


def test_what_a_filter_does_not_let_through_is_caught() -> None:
    with pytest.raises(Violation):
        live(published(), tagged=True).pushed(*pub(1))


def test_a_filter_excuses_no_double() -> None:
    view = live(published(), tagged=True)
    view.pushed(*pub(2))
    with pytest.raises(Violation):
        view.pushed(*pub(2))


# ---- joins and leaves ------------------------------------------------------------------------------------------------


def test_joins_and_leaves_come_in_turns() -> None:
    told = Told()
    told.left("was there before")
    told.joined("c")
    told.left("c")
    told.joined("c")
    with pytest.raises(Violation):
        told.joined("c")
    told.left("c")
    with pytest.raises(Violation):
        told.left("c")


# ---- any log, broken anywhere ----------------------------------------------------------------------------------------


def judge(pushes: list[Pub], count: int) -> None:
    checker = published(count)
    view = live(checker)
    push_all(view, pushes)
    view.finish()
    checker.finish()


@given(st.data(), st.integers(2, 30))
def test_a_log_is_good_until_it_is_broken_anywhere(data: st.DataObject, count: int) -> None:
    whole = [pub(offset) for offset in range(1, count + 1)]
    judge(whole, count)
    at = data.draw(st.integers(0, count - 2))
    broken = {
        "dropped": whole[:at] + whole[at + 1 :],
        "the end dropped": whole[: at + 1],
        "doubled": whole[: at + 1] + whole[at:],
        "swapped": [*whole[:at], whole[at + 1], whole[at], *whole[at + 2 :]],
        "forked": [*whole[:at], pub(at + 1, whole[at + 1][1]), *whole[at + 1 :]],
    }[data.draw(st.sampled_from(["dropped", "the end dropped", "doubled", "swapped", "forked"]))]
    with pytest.raises(Violation):
        judge(broken, count)


# ---- presence --------------------------------------------------------------------------------------------------------


def watched(samples: list[tuple[float, set[str]]], *, node_died: bool = False) -> PresenceChecker:
    """One stays from 0 on; the other comes at 2 and is gone at 10."""
    checker = PresenceChecker(ttl=60)
    checker.came("stays", 0)
    checker.came("goes", 2)
    checker.leaving("goes", 9.5)
    checker.leaving("goes", 9.9)  # it hears of it later
    checker.gone("goes", 10, node_died=node_died)
    for at, clients in samples:
        checker.sampled(clients, asked=at, answered=at + 0.1)
    return checker


GOOD_SAMPLES: list[tuple[float, set[str]]] = [
    (0.5, set()),
    (2.5, {"stays"}),
    (3.5, {"stays", "goes"}),
    (9.8, {"stays"}),
    (10.5, {"stays", "goes"}),
    (12.0, {"stays"}),
]


def test_good_samples_pass() -> None:
    watched(GOOD_SAMPLES).finish()


@pytest.mark.parametrize(
    "sample",
    [(3.5, {"goes"}), (3.5, {"stays"}), (12.0, {"stays", "goes"}), (12.0, set()), (5.0, {"stays", "goes", "ghost"})],
    ids=["one is missing", "the other is missing", "one has gone", "one is missing at the end", "one never came"],
)
def test_broken_samples_are_caught(sample: tuple[float, set[str]]) -> None:
    with pytest.raises(Violation):
        watched([*GOOD_SAMPLES, sample]).finish()


@pytest.mark.parametrize(("at", "good"), [(60.0, True), (72.5, False)])
def test_entries_of_a_dead_node_have_their_time_and_not_more(at: float, good: bool) -> None:
    checker = watched([(at, {"stays", "goes"})], node_died=True)
    if good:
        checker.finish()
    else:
        with pytest.raises(Violation):
            checker.finish()


def test_a_run_in_which_nobody_looked_proves_nothing() -> None:
    with pytest.raises(Violation):
        watched([]).finish()
