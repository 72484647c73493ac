"""Schedules: when a cron is due. A text and a time zone in, ticks (Unix milliseconds) out.

    "0 3 * * *"       five fields: minute, hour, day of month, month, day of week
    "*/10 0 3 * * *"  six: seconds before them
    "@daily"          also @hourly @midnight @weekly @monthly @yearly @annually
    "@every 90s"      an interval in whole seconds; its ticks are the multiples since 1970 (UTC)

What a wall clock does twice or never, at a change of its zone's offset, is decided here and not by
the library, which only ever sees wall times without a zone:

*   A schedule *at fixed times* (neither its minutes nor its hours, nor its seconds where it has
    them, begin with `*`) has each of its wall times once: one that the clock skips comes at the
    moment of the change, one that it shows twice comes the first time.
*   Any other schedule follows real time: what the clock skips does not come, what it shows twice
    comes twice.

Two wall times that fall on one moment are one tick.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from fluvial.durations import to_seconds
from fluvial.errors import CronError, InvalidRequestError

MAX_TEXT_CHARACTERS: Final = 200
MAX_INTERVAL_SECONDS: Final = 366 * 86_400
_EVERY: Final = "@every"
_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# The library's name of each field, ours, and what may stand there.
_FIELDS: Final = (
    ("second", "second", "0-59"),
    ("minute", "minute", "0-59"),
    ("hour", "hour", "0-23"),
    ("day-of-month", "day of month", "1-31, L (the last) or LW (the last working day)"),
    ("month", "month", "1-12 or JAN-DEC"),
    (
        "day-of-week",
        "day of week",
        "0-7 (0 and 7 are Sunday) or SUN-SAT; FRI#1 is the first Friday, 5L the last one",
    ),
)
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,3}")
_MAX_ZONE_CHARACTERS: Final = 64
_YEARS: Final = 50  # a schedule that has no tick in them never has one
_FIRST_CHECKED: Final = datetime(2020, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


class Schedule:
    """The moments at which a cron is due."""

    __slots__ = ("_when", "text", "timezone")

    def __init__(self, text: str, timezone: str = "UTC") -> None:
        """
        Raises:
            CronError: the text is no schedule, it has no tick ever, or there is no such zone; the
                message names the field, its value and what may stand there.
        """
        self.text = _normal(text)
        self.timezone = timezone
        zone = _zone(timezone)
        if self.text.startswith(_EVERY):
            self._when: _When = _Interval(self.text)
            return
        self._when = _Expression(_fields(self.text), zone)
        if self.after(int(_FIRST_CHECKED.timestamp()) * 1000) is None:
            raise CronError("schedule", f"{self.text!r} never comes within {_YEARS} years")

    def __repr__(self) -> str:
        return f"Schedule({self.text!r}, {self.timezone!r})"

    @property
    def interval_seconds(self) -> int | None:
        """The interval of an `@every` schedule; None for any other."""
        return self._when.seconds if isinstance(self._when, _Interval) else None

    def after(self, moment_ms: int) -> int | None:
        """Return the first tick after a moment; None: there is none any more."""
        second = self._when.after(moment_ms // 1000)
        return None if second is None else second * 1000

    def ticks(self, after_ms: int) -> Iterator[int]:
        """Yield the ticks after a moment, in order."""
        tick = self.after(after_ms)
        while tick is not None:
            yield tick
            tick = self.after(tick)

    def latest(self, until_ms: int, *, after_ms: int) -> int | None:
        """Return the last tick in (`after_ms`, `until_ms`], however many there are in it."""
        if not self._is_before(after_ms, until_ms):
            return None
        known, unknown = self._last_step(until_ms, after_ms)
        while unknown - known > 1000:  # a tick is a whole second: nothing is in between
            middle = (known + unknown) // 2
            if self._is_before(middle, until_ms):
                known = middle
            else:
                unknown = middle
        return self.after(known)

    def _last_step(self, until_ms: int, after_ms: int) -> tuple[int, int]:
        """Return two moments, as near as doubling steps lead: a tick follows the first until
        `until_ms`, none the second."""
        step, unknown = 1000, until_ms
        while unknown - step > after_ms:
            if self._is_before(unknown - step, until_ms):
                return unknown - step, unknown
            unknown -= step
            step *= 2
        return after_ms, unknown

    def _is_before(self, moment_ms: int, until_ms: int) -> bool:
        tick = self.after(moment_ms)
        return tick is not None and tick <= until_ms


class _When(Protocol):
    """What a text says, in Unix seconds."""

    def after(self, second: int) -> int | None: ...


class _Interval:
    __slots__ = ("seconds",)

    def __init__(self, text: str) -> None:
        written = text.removeprefix(_EVERY).strip()
        try:
            seconds = to_seconds(written, _EVERY)
        except InvalidRequestError as error:
            raise CronError("schedule", str(error)) from None
        if seconds != int(seconds) or not 1 <= seconds <= MAX_INTERVAL_SECONDS:
            raise CronError(
                "schedule",
                f"{_EVERY} takes 1 s to {MAX_INTERVAL_SECONDS // 86_400} days in whole seconds,"
                f" got {written!r}",
            )
        self.seconds = int(seconds)

    def after(self, second: int) -> int | None:
        return (second // self.seconds + 1) * self.seconds


class _Expression:
    __slots__ = ("_fields", "_is_fixed", "_zone")

    def __init__(self, fields: list[str], zone: ZoneInfo) -> None:
        self._fields = " ".join(fields)
        self._is_fixed = not any(field.startswith("*") for field in fields[:-3])
        self._zone = zone

    def after(self, second: int) -> int | None:
        here = datetime.fromtimestamp(second, self._zone)
        wall = here.replace(tzinfo=None, fold=0)
        for candidate in self._walls(wall):
            first, again = self._moments(candidate)
            come = [m for m in self._chosen(candidate, first, again) if m > second]
            if come and come[0] == first < again:
                return first  # the clock shows it twice, and this is the first time
            if come:
                return min(come[0], self._second_pass(here, wall) or come[0])
        return self._second_pass(here, wall)

    def _walls(self, wall: datetime) -> Iterator[datetime]:
        """Yield the wall times after one, with neither zone nor end that a caller would meet."""
        last = wall.year + _YEARS
        for candidate in CronSim(self._fields, wall):
            if candidate.year > last:
                return
            yield candidate

    def _chosen(self, wall: datetime, first: int, again: int) -> tuple[int, ...]:
        """Return when a wall time counts, in order."""
        if first == again:
            return (first,)
        if first < again:
            return (first,) if self._is_fixed else (first, again)
        return (self._change(again, first),) if self._is_fixed else ()

    def _moments(self, wall: datetime) -> tuple[int, int]:
        """Return the Unix seconds of a wall time by the offset before and by that after a change;
        they are the other way round for one that the clock skips."""
        first = wall.replace(tzinfo=self._zone)
        return int(first.timestamp()), int(first.replace(fold=1).timestamp())

    def _second_pass(self, here: datetime, wall: datetime) -> int | None:
        """Return the first tick of the clock's second pass, if `here` is in its first one."""
        first, again = self._moments(wall)
        if self._is_fixed or here.fold or first >= again:
            return None
        for candidate in self._walls(wall - timedelta(seconds=again - first) - _SECOND):
            if candidate > wall:
                return None
            one, other = self._moments(candidate)
            if one < other:
                return other
        return None

    def _change(self, before: int, after: int) -> int:
        """Return the moment in (before, after] at which the zone's offset changes."""
        offset = datetime.fromtimestamp(before, self._zone).utcoffset()
        while after - before > 1:
            middle = (before + after) // 2
            if datetime.fromtimestamp(middle, self._zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after


def _normal(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise CronError("schedule", f'must be text such as "0 3 * * *", got {text!r}')
    normal = " ".join(text.split())
    if len(normal) > MAX_TEXT_CHARACTERS:
        raise CronError("schedule", f"has {len(normal)} characters, above {MAX_TEXT_CHARACTERS}")
    return normal


def _fields(text: str) -> list[str]:
    """Return the five or six fields of an expression, checked."""
    if text.startswith("@") and text.lower() not in _ALIASES:
        known = ", ".join([*_ALIASES, f"{_EVERY} 10m"])
        raise CronError("schedule", f"{text!r} is not a known name: {known}")
    fields = _ALIASES.get(text.lower(), text).split()
    if len(fields) not in (5, 6):
        raise CronError(
            "schedule",
            f"{text!r} has {len(fields)} fields, not 5 (minute, hour, day of month, month, day of"
            " week) or 6 (second before them)",
        )
    try:
        CronSim(" ".join(fields), _FIRST_CHECKED.replace(tzinfo=None))
    except CronSimError as error:
        raise CronError("schedule", _explain(text, fields, str(error))) from None
    return fields


def _explain(text: str, fields: list[str], said: str) -> str:
    day, month = fields[-3:-1]
    if said.endswith("day-of-month") and month != "*" and _is_day(day):
        return f"{text!r} never comes: month {month!r} has no day {day!r}"
    for place, (library_name, name, allowed) in enumerate(_FIELDS, len(fields) - len(_FIELDS)):
        if said.endswith(library_name) and place >= 0:
            return (
                f"{text!r}: {name} {fields[place]!r} is not possible; allowed are {allowed},"
                " *, lists (1,2), rising ranges (1-5) and steps (*/5)"
            )
    return f"{text!r} is not a cron expression: {said}"


def _is_day(field: str) -> bool:
    """Whether a day of month would be right in some month."""
    try:
        CronSim(f"0 0 {field} * *", _FIRST_CHECKED.replace(tzinfo=None))
    except CronSimError:
        return False
    return True


def _zone(name: object) -> ZoneInfo:
    text = name if isinstance(name, str) and len(name) <= _MAX_ZONE_CHARACTERS else ""
    try:
        if not _ZONE.fullmatch(text):
            raise ZoneInfoNotFoundError
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A name that is a folder of the database is an OSError, its wrong file a ValueError.
        close = difflib.get_close_matches(text, available_timezones(), n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise CronError(
            "timezone", f"{name!r} is not a time zone: {meant}write for example Europe/Berlin"
        ) from None
