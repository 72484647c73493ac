"""Heartbeats of an attempt, on a clock that a test moves."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest

from fluvial.errors import SerializationError
from fluvial.pulses import Pulse

SECONDS = 40.0  # a heartbeat; reports come at least 10 s apart


class FakeTimer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """Timers, callbacks and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self._count = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None], FakeTimer]] = []
        self._soon: list[Callable[[], None]] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        timer = FakeTimer()
        heapq.heappush(self._due, (self.now + delay, next(self._count), callback, timer))
        return timer

    def call_soon_threadsafe(self, callback: Callable[[], None], /) -> None:
        self._soon.append(callback)

    def advance(self, seconds: float) -> None:
        """Let time pass, and happen what is due."""
        end = self.now + seconds
        self.run()
        while self._due and self._due[0][0] <= end:
            self.now, _, callback, timer = heapq.heappop(self._due)
            if not timer.is_cancelled:
                callback()
            self.run()
        self.now = end

    def run(self) -> None:
        while self._soon:
            self._soon.pop(0)()


class Watched:
    """A pulse and what it has done."""

    def __init__(self, *, heartbeat_ms: int = int(SECONDS * 1000)) -> None:
        self.loop = FakeLoop()
        self.reports: list[bytes] = []
        self.silences = 0
        self.pulse = Pulse(
            self.loop,
            heartbeat_ms=heartbeat_ms,
            seal=lambda plaintext: b"sealed " + plaintext,
            report=self.reports.append,
            on_silence=self._silence,
            clock=self.loop.clock,
        )

    def _silence(self) -> None:
        self.silences += 1


def test_silence_ends_it_once() -> None:
    watched = Watched()

    watched.loop.advance(SECONDS - 1)
    assert watched.silences == 0
    watched.loop.advance(100 * SECONDS)
    assert watched.silences == 1


def test_each_beat_gives_it_time_until_the_next() -> None:
    watched = Watched()

    for _ in range(10):
        watched.loop.advance(SECONDS - 1)
        watched.pulse.beat(None)
    assert watched.silences == 0

    watched.loop.advance(SECONDS - 1)
    assert watched.silences == 0
    watched.loop.advance(1)
    assert watched.silences == 1


def test_the_first_beat_is_reported_at_once_and_later_ones_at_intervals() -> None:
    watched = Watched()

    for number in range(25):
        watched.pulse.beat(b"%d" % number)
        watched.loop.advance(1)

    assert watched.reports == [b"sealed 0", b"sealed 10", b"sealed 20"]
    assert watched.pulse.sealed_progress() == b"sealed 24"


def test_a_beat_without_progress_is_reported_and_keeps_what_was_said() -> None:
    watched = Watched()

    watched.pulse.beat(b"half")
    watched.loop.advance(10)
    watched.pulse.beat(None)
    watched.loop.advance(10)

    assert watched.reports == [b"sealed half", b""]
    assert watched.pulse.sealed_progress() == b"sealed half"


def test_what_nobody_watches_is_reported_all_the_same() -> None:
    watched = Watched(heartbeat_ms=0)

    watched.loop.advance(1_000_000)
    watched.pulse.beat(b"far")
    watched.loop.run()

    assert watched.silences == 0
    assert watched.reports == [b"sealed far"]


@pytest.mark.parametrize("ends", ["silence", "stop"])
def test_after_the_end_nothing_is_reported_and_a_beat_says_so(ends: str) -> None:
    watched = Watched()
    watched.pulse.beat(b"too late")

    if ends == "stop":
        watched.pulse.stop()
        watched.loop.advance(100 * SECONDS)
        assert watched.reports == []
    else:
        watched.loop.advance(100 * SECONDS)

    with pytest.raises(TimeoutError):
        watched.pulse.beat(b"later")


def test_a_progress_that_is_too_large_is_refused_and_is_no_beat() -> None:
    watched = Watched()

    with pytest.raises(SerializationError, match="progress"):
        watched.pulse.beat(b"x" * 8193)

    assert watched.pulse.sealed_progress() == b""
