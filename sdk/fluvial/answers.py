"""Answers from the run: what clocks and sources of chance say while workflow code asks.

The clocks stand at the time of the last event that the workflow has seen, also `monotonic` and
`perf_counter`, as the loop's own clock does; clocks of CPU time stand at zero. Chance is seeded by
the run (`fluvial.scope`). A value is drawn from the run only where the workflow itself asks while
it can still go on: not for an import, for a finaliser, or for `finally` blocks of a discarded
coroutine, as those do not happen again in a replay.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from asyncio.events import _get_running_loop  # pyright: ignore[reportPrivateUsage] - in asyncio's __all__
from collections.abc import Callable
from typing import Any, Final

from fluvial.callers import acting_loop
from fluvial.loop import WorkflowLoop
from fluvial.replacements import Function, Make, replace_builtin, replace_function

_CPU_CLOCKS: Final = frozenset({time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_THREAD_CPUTIME_ID})
_ENTROPY_SEED_BYTES: Final = 32
_GREGORIAN_TICKS: Final = 0x01B21DD213814000  # 100 ns from 1582-10-15 to 1970-01-01 (RFC 9562)
_MULTICAST: Final = 1 << 40  # marks a node number as no network card's (RFC 9562, §6.10)


def install() -> None:
    """Put the answers in the place of `time`, `random`, `os.urandom` and `uuid.uuid1`."""
    _install_clocks()
    _install_chance()


def answering_loop() -> WorkflowLoop | None:
    """Return the loop of the run that answers what is asked here; None: nothing unusual does."""
    loop = acting_loop()
    return None if loop is None or loop.journal.is_closed else loop


def nanoseconds(loop: WorkflowLoop) -> int:
    """The loop's time in nanoseconds; exact to the microsecond, as a float of it is."""
    return round(loop.time() * 1_000_000) * 1000


def _install_clocks() -> None:
    for name in ("time", "monotonic", "perf_counter"):
        replace_builtin(time, name, _asking(WorkflowLoop.time))
        replace_builtin(time, f"{name}_ns", _asking(nanoseconds))
    for name in ("process_time", "thread_time"):
        replace_builtin(time, name, _asking(lambda _: 0.0))
        replace_builtin(time, f"{name}_ns", _asking(lambda _: 0))
    replace_builtin(time, "clock_gettime", _answered(_clock_seconds))
    replace_builtin(time, "clock_gettime_ns", _answered(_clock_nanoseconds))
    for name in ("localtime", "gmtime", "ctime"):
        replace_builtin(time, name, _from_now)
    replace_builtin(time, "asctime", _from_local_now(0))
    replace_builtin(time, "strftime", _from_local_now(1))


def _install_chance() -> None:
    for name in random.__all__:
        if not isinstance(getattr(random, name), type):
            replace_builtin(random, name, _drawn(name))
    replace_function(random.Random, "seed", _seeded)
    replace_builtin(os, "urandom", _answered(_entropy))
    replace_builtin(os, "getrandom", _answered(_entropy))
    # What SystemRandom and `secrets` draw from; `uuid.uuid4` asks `os.urandom`.
    setattr(random, "_urandom", os.urandom)  # noqa: B010 - no stub knows it
    replace_function(uuid, "uuid1", _uuid1)


def _asking(read: Callable[[WorkflowLoop], Any]) -> Make:
    """For functions without arguments, which are called often: as little as can be."""

    def make(real: Function) -> Function:
        def ask(_home: object, /) -> Any:
            if type(_get_running_loop()) is not WorkflowLoop:
                return real()
            loop = answering_loop()
            return real() if loop is None else read(loop)

        return ask

    return make


def _answered(answer: Function) -> Make:
    def make(real: Function) -> Function:
        def ask(_home: object, /, *args: Any, **kwargs: Any) -> Any:
            if type(_get_running_loop()) is not WorkflowLoop:
                return real(*args, **kwargs)
            loop = answering_loop()
            return real(*args, **kwargs) if loop is None else answer(loop, *args, **kwargs)

        return ask

    return make


def _from_now(real: Function) -> Function:
    """`localtime()` and its like: the current time unless told another one."""

    def ask(_home: object, seconds: float | None = None, /) -> Any:
        if seconds is None and type(_get_running_loop()) is WorkflowLoop:
            loop = answering_loop()
            seconds = None if loop is None else loop.time()
        return real(seconds)

    return ask


def _from_local_now(arguments: int) -> Make:
    """`asctime()` and `strftime(format)`: behind so many arguments comes the local time, or not."""

    def make(real: Function) -> Function:
        def ask(_home: object, /, *args: Any) -> Any:
            if len(args) == arguments and type(_get_running_loop()) is WorkflowLoop:
                args = (*args, time.localtime())
            return real(*args)

        return ask

    return make


def _clock_seconds(loop: WorkflowLoop, clock: int) -> float:
    return 0.0 if clock in _CPU_CLOCKS else loop.time()


def _clock_nanoseconds(loop: WorkflowLoop, clock: int) -> int:
    return 0 if clock in _CPU_CLOCKS else nanoseconds(loop)


def _drawn(name: str) -> Make:
    def draw(loop: WorkflowLoop, *args: Any, **kwargs: Any) -> Any:
        return getattr(loop.scope.random, name)(*args, **kwargs)

    return _answered(draw)


def _entropy(loop: WorkflowLoop, size: int, _flags: int = 0) -> bytes:
    return loop.scope.entropy(size)


def _seeded(real: Function) -> Function:
    """`Random()` without a seed takes one from the operating system, below Python."""

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None and type(_get_running_loop()) is WorkflowLoop:
            loop = answering_loop()
            a = None if loop is None else loop.scope.entropy(_ENTROPY_SEED_BYTES)
        real(self, a, version)

    return seed


def _uuid1(real: Callable[..., uuid.UUID]) -> Function:
    def uuid1(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
        loop = answering_loop()
        if loop is None:
            return real(node, clock_seq)
        draw = loop.scope.entropy
        if node is None:
            node = int.from_bytes(draw(6), "big") | _MULTICAST
        if clock_seq is None:
            clock_seq = int.from_bytes(draw(2), "big")
        ticks = loop.scope.tick(nanoseconds(loop) // 100 + _GREGORIAN_TICKS)
        fields = (
            ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF,
            clock_seq >> 8 & 0x3F, clock_seq & 0xFF, node,
        )  # fmt: skip
        return uuid.UUID(fields=fields, version=1)

    return uuid1
