from collections.abc import Callable

import pytest

from fluvial_invoker.instance.idle import IdleWatch


class Timers:
    """A clock that the tests move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        self.due.append((self.now + delay, callback))

    def advance(self, seconds: float) -> None:
        target = self.now + seconds
        while ready := [entry for entry in self.due if entry[0] <= target]:
            entry = min(ready, key=lambda item: item[0])
            self.due.remove(entry)
            self.now = max(self.now, entry[0])
            entry[1]()
        self.now = target


def watch() -> tuple[Timers, IdleWatch, list[float]]:
    timers = Timers()
    fired: list[float] = []
    return timers, IdleWatch(timers, 10.0, lambda: fired.append(timers.now)), fired


def test_fires_once_after_the_whole_time() -> None:
    timers, idle, fired = watch()
    idle.idle()
    timers.advance(9.9)
    assert fired == []
    timers.advance(100)

    assert fired == [110.0]


def test_never_fires_while_busy() -> None:
    timers, idle, fired = watch()
    idle.idle()
    timers.advance(5)
    idle.busy()
    timers.advance(1000)

    assert fired == []
    assert timers.due == []  # and no timer ticks


def test_counts_from_when_it_last_became_idle_with_one_timer() -> None:
    timers, idle, fired = watch()
    for _ in range(1000):
        idle.idle()
        timers.advance(0.009)
        idle.busy()
    idle.idle()
    assert len(timers.due) == 1
    timers.advance(100)

    assert fired == [pytest.approx(119.0)]


def test_stopped_watch_never_fires() -> None:
    timers, idle, fired = watch()
    idle.idle()
    idle.stop()
    timers.advance(100)

    assert fired == []


def test_a_kept_instance_does_not_fire_until_nobody_keeps_it() -> None:
    timers, idle, fired = watch()
    idle.keep(wanted=True)
    idle.keep(wanted=True)
    idle.idle()
    timers.advance(100.0)
    idle.keep(wanted=False)
    timers.advance(100.0)
    assert fired == []

    idle.keep(wanted=False)
    timers.advance(9.9)
    assert fired == []
    timers.advance(0.1)
    assert fired == [310.0]
