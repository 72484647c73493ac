"""The watchdog: a thread that samples the instance while something is in flight.

* It sees a blocked event loop, because it is not on it: a beat that the loop does not answer in
  time is trouble at once. It then revokes what has not started (`claims.py`) and tells the gateways
  over connections of their own, which nobody but this thread writes to.
* It decides nothing that is under way. The loop reads its verdict (`trouble`, `limit`) before it
  starts a handler.
* With nothing in flight it sleeps without a tick. Waking it costs the loop something only when it
  has slept: it lingers for some samples, so at steady load that is never.

A call that holds the interpreter's lock (some C code) holds up this thread too, and is then seen
when it is over.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from time import sleep
from typing import Any, Final, Protocol

from fluvial.unguarded import monotonic
from fluvial.wire import FrameType, pack
from fluvial_invoker.instance.adaptive_limit import AdaptiveLimit
from fluvial_invoker.instance.claims import Claims
from fluvial_invoker.instance.readings import Readings
from fluvial_invoker.instance.samples import (
    BUSY_LAG_SECONDS,
    DESCRIPTORS,
    LAG,
    MAX_LAG_SECONDS,
    MEMORY,
    Sample,
    trouble_of,
)

PERIOD_SECONDS: Final = 0.1
_LINGER_SAMPLES: Final = 10
_TOLD_AGAIN_AFTER: Final = 0.1  # of CPU or memory: smaller changes are not worth a frame
_NOTHING_REVOKED: Final = -1


class Loop(Protocol):
    """The part of the event loop that another thread may use."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object: ...


class Load(Protocol):
    """What the instance has taken on."""

    @property
    def in_flight(self) -> int: ...
    @property
    def ended(self) -> int: ...


class Watcher:
    """One gateway's view: its link's claims, and the connection on which it hears of health."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self._socket: socket.socket | None = None
        self._told: tuple[str, bool, Sample] | None = None
        self._lock = threading.Lock()  # the loop attaches and closes, the watchdog writes

    def attach(self, sock: socket.socket) -> None:
        """Tell the gateway over this connection from now on."""
        with self._lock:
            self._close()
            self._socket = sock

    def close(self) -> None:
        """The link is gone."""
        with self._lock:
            self._close()

    def revoke(self, sample: Sample) -> None:
        """The loop is blocked: have what has not started sent elsewhere."""
        with self._lock:
            if self._socket is None:
                return
            claimed = self.claims.revoke()
            if claimed is not None and not self._tell(LAG, sample, claimed):
                self.claims.restore()

    def tell(self, trouble: str, sample: Sample) -> None:
        """Tell what has changed."""
        with self._lock:
            if self._socket is None or not self._is_news(trouble, sample):
                return
            self._tell(trouble, sample, _NOTHING_REVOKED)

    def _is_news(self, trouble: str, sample: Sample) -> bool:
        if self._told is None:
            return True
        told, was_open, before = self._told
        return (
            trouble != told
            or self.claims.is_open != was_open
            or sample.limit != before.limit
            or abs(sample.cpu_share - before.cpu_share) > _TOLD_AGAIN_AFTER
            or abs(sample.memory_share - before.memory_share) > _TOLD_AGAIN_AFTER
        )

    def _tell(self, trouble: str, sample: Sample, claimed: int) -> bool:
        """Write one frame; a gateway that does not read loses the connection."""
        sock = self._socket
        if sock is None:
            return False
        # Until the gateway has said RESUME, what it sends would be sent back.
        trouble = trouble or ("" if self.claims.is_open else LAG)
        frame = pack(FrameType.HEALTH, 0, trouble, claimed, sample.to_fields())
        try:
            if sock.send(frame, socket.MSG_DONTWAIT) != len(frame):
                raise BlockingIOError
        except OSError:
            self._close()
            return False
        self._told = (trouble, self.claims.is_open, sample)
        return True

    def _close(self) -> None:
        sock, self._socket = self._socket, None
        self._told = None
        if sock is not None:
            sock.close()


class Watchdog:
    """Samples; `trouble` and `limit` are its verdict."""

    def __init__(
        self,
        loop: Loop,
        load: Load,
        limit: AdaptiveLimit,
        readings: Readings,
        *,
        waiting_for_thread: Callable[[], int],
        on_worn: Callable[[str], None],
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            loop: the instance's.
            load: what is in flight.
            limit: adapted here.
            readings: what the kernel says.
            waiting_for_thread: how many blocking calls no thread has begun.
            on_worn: called in the loop when memory or descriptors stay in trouble with nothing in
                flight: they were leaked, and a fresh instance would have them.
        """
        self.trouble = ""
        self.limit = limit
        self._loop = loop
        self._load = load
        self._readings = readings
        self._waiting_for_thread = waiting_for_thread
        self._on_worn = on_worn
        self._watchers: tuple[Watcher, ...] = ()
        self._wake = threading.Event()
        self._is_asleep = False
        self._beat = threading.Event()
        self._lag = 0.0  # of the last beat
        self._sampled_at = 0.0
        self._cpu_seconds = 0.0
        self._ended = 0
        self._waiting = 0
        self._was_worn_at_first = False

    # For the event loop

    def start(self) -> None:
        """Start the thread; it sleeps until something is in flight."""
        self._was_worn_at_first = trouble_of(self._measure(0.0)) != ""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def busy(self) -> None:
        """Something is in flight."""
        if self._is_asleep:
            self._wake.set()

    def add(self, watcher: Watcher) -> None:
        """Tell a gateway too, once its watcher has a connection."""
        self._watchers = (*self._watchers, watcher)

    def remove(self, watcher: Watcher) -> None:
        """Its link is gone."""
        self._watchers = tuple(each for each in self._watchers if each is not watcher)
        watcher.close()

    # The thread

    def _watch(self) -> None:
        try:
            while True:
                self._sleep_until_busy()
                self._sample_until_quiet()
        except RuntimeError:
            return  # the loop is closed: the instance ends

    def _sleep_until_busy(self) -> None:
        self._wake.clear()
        self._is_asleep = True
        if not self._load.in_flight:  # looked at after the line above: `busy` sees one or the other
            self._wake.wait()
        self._is_asleep = False
        self._mark()

    def _sample_until_quiet(self) -> None:
        quiet = 0
        while quiet < _LINGER_SAMPLES:
            ended = self._load.ended
            self._judge(self._lag_seconds())
            if self.trouble != LAG:  # else look again at once: neighbours wait for good news
                sleep(PERIOD_SECONDS)
            is_quiet = not self._load.in_flight and self._load.ended == ended
            quiet = quiet + 1 if is_quiet else 0
        is_worn = self.trouble in (MEMORY, DESCRIPTORS) and not self._was_worn_at_first
        if is_worn:
            self._loop.call_soon_threadsafe(self._on_worn, self.trouble)

    def _lag_seconds(self) -> float:
        """Return how late the loop is; what it was not given a core for is not its fault."""
        began, queued = monotonic(), self._readings.queued_seconds()
        self._beat.clear()
        self._loop.call_soon_threadsafe(self._answer, began, queued)
        was_revoked = False
        while not self._beat.wait(MAX_LAG_SECONDS):
            late = self._late_seconds(began, queued)
            if late > MAX_LAG_SECONDS and not was_revoked:
                was_revoked = True
                self._revoke(late)
        return self._lag

    def _answer(self, began: float, queued: float) -> None:
        """The beat, in the loop: it measures, since the watchdog may be late itself to notice."""
        self._lag = self._late_seconds(began, queued)
        self._beat.set()

    def _late_seconds(self, began: float, queued: float) -> float:
        late = monotonic() - began
        if late > BUSY_LAG_SECONDS:
            late = max(0.0, late - (self._readings.queued_seconds() - queued))
        return late

    def _revoke(self, lag_seconds: float) -> None:
        """The loop is blocked, and frames wait unread in it: have others take them."""
        self.trouble = LAG
        sample = self._measure(lag_seconds)
        for watcher in self._watchers:
            watcher.revoke(sample)

    def _judge(self, lag_seconds: float) -> None:
        before, ended = self._sampled_at, self._ended
        sample = self._measure(lag_seconds)
        trouble = trouble_of(sample)
        if trouble:
            self.limit.trouble(sample.in_flight)
        else:
            self.limit.calm(sample.in_flight, self._ended - ended, self._sampled_at - before)
        self.trouble = trouble
        told = replace(sample, limit=self.limit.now)
        for watcher in self._watchers:
            watcher.tell(trouble, told)

    def _measure(self, lag_seconds: float) -> Sample:
        before, cpu_before, waited = self._sampled_at, self._cpu_seconds, self._waiting
        self._mark()
        self._waiting = self._waiting_for_thread()
        return Sample(
            in_flight=self._load.in_flight,
            limit=self.limit.now,
            lag_seconds=lag_seconds,
            cpu_share=(self._cpu_seconds - cpu_before) / max(1e-6, self._sampled_at - before),
            memory_share=self._readings.memory_share(),
            descriptor_share=self._readings.descriptor_share(),
            waiting_for_thread=min(waited, self._waiting),
        )

    def _mark(self) -> None:
        self._sampled_at = monotonic()
        self._cpu_seconds = self._readings.cpu_seconds()
        self._ended = self._load.ended
