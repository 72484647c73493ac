from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fluvial_invoker.instance.deadlines import Deadlines


@dataclass(eq=False)
class Call:
    """A timer of `Timers`."""

    when: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Timers:
    """A clock that the tests move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Call] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Call:
        call = Call(when, callback)
        self.calls.append(call)
        return call

    def waiting(self) -> list[Call]:
        return [call for call in self.calls if not call.is_cancelled]

    def advance_to(self, now: float) -> None:
        self.now = now
        for call in [call for call in self.waiting() if call.when <= now]:
            self.calls.remove(call)
            call.callback()


@dataclass(eq=False)
class Item:
    """Something with a deadline."""

    deadline: float
    expired: int = 0

    def expire(self) -> None:
        self.expired += 1


def test_each_expires_once_at_its_own_time() -> None:
    timers = Timers()
    deadlines = Deadlines(timers)
    items = [Item(3.0), Item(1.0), Item(2.0)]
    for item in items:
        deadlines.add(item)
    timers.advance_to(1.5)
    assert [item.expired for item in items] == [0, 1, 0]
    timers.advance_to(3.0)
    timers.advance_to(9.0)

    assert [item.expired for item in items] == [1, 1, 1]


def test_removed_item_never_expires() -> None:
    timers = Timers()
    deadlines = Deadlines(timers)
    item = Item(1.0)
    deadlines.add(item)
    deadlines.remove(item)
    timers.advance_to(2.0)

    assert item.expired == 0
    assert timers.waiting() == []


def test_one_timer_serves_many_items() -> None:
    timers = Timers()
    deadlines = Deadlines(timers)
    for number in range(1000):
        deadlines.add(Item(10.0 + number))

    assert len(timers.waiting()) == 1
