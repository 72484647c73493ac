"""Which of a cron's ticks that have come is started next, and which are given up. No I/O.

A tick is *due* at its time plus its jitter, which is a function of the cron and the tick: every
scheduler knows the same one. It is *missed* when it is looked at later than `GRACE_MS` after that,
unless it has been waiting for a run to end; what becomes of missed ticks is the cron's `catch_up`.
The newest tick counts for those before it that are given up.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, takewhile
from typing import Final

from fluvial.crons import MAX_CATCH_UP, CronSpec
from fluvial.schedules import Schedule

# A restart of the gateway, or a partition's lease that has to run out first, is nobody's absence.
GRACE_MS: Final = 60_000
COUNTED: Final = 2 * MAX_CATCH_UP  # of more ticks that have come at once, so many are counted
_SCHEDULES: Final = 4096  # parsed ones that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done about a cron now."""

    tick_ms: int | None = None  # to start now; then plan again
    missed: int = 0  # ticks that are given up
    last_missed_ms: int = 0
    considered_ms: int  # up to which ticks are dealt with, before `tick_ms` is


@lru_cache(maxsize=_SCHEDULES)
def schedule_of(text: str, timezone: str) -> Schedule:
    """Return a parsed schedule; parsing takes longer than asking it."""
    return Schedule(text, timezone)


def plan(
    spec: CronSpec,
    *,
    considered_ms: int,
    now_ms: int,
    waiting_since_ms: int | None = None,
) -> Plan:
    """Return what is to be done about the ticks after `considered_ms`.

    Args:
        spec: the cron.
        considered_ms: the ticks up to here are dealt with.
        now_ms: the store's time.
        waiting_since_ms: since when ticks wait for a run to end, if they do.
    """
    come, count = _come(spec, considered_ms, now_ms)
    if not come:
        return Plan(considered_ms=considered_ms)
    patience_ms = now_ms - GRACE_MS
    if waiting_since_ms is not None:
        patience_ms = min(patience_ms, waiting_since_ms)
    wanted = [tick for tick in come[-_most(spec) :] if _is_wanted(spec, tick, now_ms, patience_ms)]
    missed = come[: len(come) - len(wanted)]
    return Plan(
        tick_ms=wanted[0] if wanted else None,
        missed=count - len(wanted),
        last_missed_ms=missed[-1] if missed else 0,
        considered_ms=wanted[0] - 1 if wanted else come[-1],
    )


def due_ms(spec: CronSpec, tick_ms: int) -> int:
    """Return when a tick is due: at its time, or later by its jitter."""
    jitter_ms = int(spec.jitter_seconds * 1000)
    if jitter_ms == 0:
        return tick_ms
    digest = hashlib.sha256(f"{spec.identity} {tick_ms}".encode()).digest()
    return tick_ms + int.from_bytes(digest[:6], "big") % jitter_ms


def next_due_ms(spec: CronSpec, considered_ms: int) -> int | None:
    """Return when the first tick after `considered_ms` is due; None: there is none."""
    tick = schedule_of(spec.schedule, spec.timezone).after(considered_ms)
    return None if tick is None else due_ms(spec, tick)


def _come(spec: CronSpec, considered_ms: int, now_ms: int) -> tuple[list[int], int]:
    """Return the last ticks that are due, oldest first, and how many there are (`COUNTED`, if
    there are more): as many as a policy can want, and one that it gives up."""
    schedule = schedule_of(spec.schedule, spec.timezone)
    due = takewhile(lambda tick: due_ms(spec, tick) <= now_ms, schedule.ticks(considered_ms))
    found = list(islice(due, COUNTED))
    if len(found) < COUNTED:
        return found, len(found)
    last: list[int] = []
    until_ms = now_ms - int(spec.jitter_seconds * 1000)
    while len(last) <= _most(spec):
        tick = schedule.latest(until_ms, after_ms=considered_ms)
        if tick is None:
            break
        last.append(tick)
        until_ms = tick - 1
    return last[::-1], COUNTED


def _most(spec: CronSpec) -> int:
    return spec.catch_up_limit if spec.catch_up == "all" else 1


def _is_wanted(spec: CronSpec, tick_ms: int, now_ms: int, patience_ms: int) -> bool:
    if spec.catch_up == "one" or due_ms(spec, tick_ms) >= patience_ms:
        return True
    window_ms = int(spec.catch_up_window_seconds * 1000)
    return spec.catch_up == "all" and tick_ms >= now_ms - window_ms
