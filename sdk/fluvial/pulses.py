"""Heartbeats of one attempt: its body says that it is alive, and how far it has come.

A beat costs a clock reading and, with progress, an encoding. Whether beats are missing is looked at
by one timer; they are reported to the platform at most once every `report_seconds`, and what was
said last goes along. Beats may come from any thread; everything else happens on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fluvial.errors import SerializationError
from fluvial.invocations import MAX_PROGRESS_BYTES, report_seconds
from fluvial.unguarded import monotonic


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that a pulse needs (tests bring their own)."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...
    def call_soon_threadsafe(self, callback: Callable[[], None], /) -> object: ...


class Pulse:
    """The heartbeats of one attempt.

    Args:
        heartbeat_ms: after so long without a beat `on_silence` is called, once; 0: never.
        report: tells the platform; is handed the sealed progress, empty if there is nothing new.
        seal: seals a progress.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        heartbeat_ms: int,
        seal: Callable[[bytes], bytes],
        report: Callable[[bytes], None],
        on_silence: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._timers = timers
        self._seconds = heartbeat_ms / 1000
        self._pause_seconds = report_seconds(heartbeat_ms)
        self._seal = seal
        self._send = report
        self._on_silence = on_silence
        self._clock = clock
        self._last = clock()
        self._report_at = self._last
        self._progress: bytes | None = None
        self._is_new = False  # the progress has not been reported
        self._is_over = False
        self._timer = timers.call_later(self._seconds, self._look) if heartbeat_ms else None

    def beat(self, progress: bytes | None) -> None:
        """Take in a sign of life, with the encoded progress if there is one.

        Raises:
            SerializationError: the progress is too large.
            TimeoutError: the attempt is over; a body in a thread learns so that it may stop.
        """
        if self._is_over:
            raise TimeoutError("this attempt of the step is over: no heartbeat came in time")
        if progress is not None:
            if len(progress) > MAX_PROGRESS_BYTES // 2:
                limit = MAX_PROGRESS_BYTES // 2
                raise SerializationError("progress", f"has {len(progress)} bytes, above {limit}")
            self._progress, self._is_new = progress, True
        self._last = now = self._clock()
        if now >= self._report_at:
            self._report_at = now + self._pause_seconds
            self._timers.call_soon_threadsafe(self._report)

    def stop(self) -> None:
        """The attempt has ended: watch and report no more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def sealed_progress(self) -> bytes:
        """Return what the body said last, sealed; empty if it has said nothing."""
        return b"" if self._progress is None else self._seal(self._progress)

    def _report(self) -> None:
        if self._is_over:
            return
        is_new, self._is_new = self._is_new, False
        self._send(self.sealed_progress() if is_new else b"")

    def _look(self) -> None:
        left = self._last + self._seconds - self._clock()
        if left > 0:
            self._timer = self._timers.call_later(left, self._look)
        else:
            self.stop()
            self._on_silence()
