"""When the new side of a rollout fails."""

from __future__ import annotations

import pytest

from fluvial_gateway.rollout_counts import (
    MIN_ANSWERS,
    MIN_ERRORS,
    WINDOW_SECONDS,
    RolloutCounts,
    SideView,
    verdict,
)


@pytest.mark.parametrize(
    ("old", "new", "fails"),
    [
        (SideView(100, 0), SideView(100, 6), True),
        (SideView(0, 0), SideView(20, 6), True),
        (SideView(100, 0), SideView(100, 5), False),  # not above the margin
        (SideView(100, 10), SideView(100, 20), False),  # not above twice the old one's
        (SideView(100, 10), SideView(100, 21), True),
        (SideView(100, 100), SideView(100, 100), False),  # an outage that both feel
        (SideView(100, 0), SideView(MIN_ANSWERS - 1, MIN_ERRORS), False),  # too few to tell
        (SideView(100, 0), SideView(10, MIN_ERRORS - 1), False),
        (SideView(100, 0), SideView(MIN_ERRORS, MIN_ERRORS), True),  # nothing else yet
        (SideView(10, 5), SideView(MIN_ERRORS, MIN_ERRORS), False),
        (SideView(0, 0), SideView(MIN_ERRORS, MIN_ERRORS), True),
    ],
    ids=str,
)
def test_the_new_side_fails_when_it_is_clearly_worse(
    old: SideView, new: SideView, fails: bool
) -> None:
    assert bool(verdict(old, new)) is fails


class Watched:
    """Counts by a clock that tests move, and what was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.counts = RolloutCounts(lambda: self.now, self.told.append)

    def answer(self, *statuses: int) -> None:
        for status in statuses:
            self.counts.new.answered(status)


def test_a_failure_is_told_once() -> None:
    watched = Watched()
    watched.answer(*[500] * 30)

    assert watched.told == [
        "5 of 5 answers of the new deployment were errors, and 0 of 0 of the old one's"
    ]


def test_server_errors_and_lost_answers_count_and_those_of_clients_do_not() -> None:
    watched = Watched()
    watched.answer(200, 302, 404, 499, 500, 503, 0)

    assert watched.counts.new.view() == SideView(7, 3)


def test_what_was_long_ago_is_not_looked_at() -> None:
    watched = Watched()
    watched.answer(*[200] * 1000)
    watched.now = WINDOW_SECONDS
    watched.answer(500)
    assert watched.counts.new.view() == SideView(1001, 1)
    watched.now = 2 * WINDOW_SECONDS
    watched.answer(*[500] * 19)
    assert watched.told  # the good hours before do not hide it

    watched.now = 9 * WINDOW_SECONDS
    watched.counts.turn()
    assert watched.counts.new.view() == SideView(0, 0)
