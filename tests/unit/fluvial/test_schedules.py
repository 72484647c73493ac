"""When crons are due: expressions, intervals, and the days on which clocks are changed.

The oracle walks through real minutes and reads the zone's wall clock, so it shares nothing with the
code but the zone database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluvial.errors import CronError
from fluvial.schedules import MAX_TEXT_CHARACTERS, Schedule

MINUTE = timedelta(minutes=1)
# Zone, and days (local dates) around which its offset changes; Kathmandu has an odd one.
CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),  # by half an hour
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Sao_Paulo", "2017-10-15"),  # at midnight
    ("America/Sao_Paulo", "2018-02-18"),
    ("Asia/Kathmandu", "2026-03-29"),
    ("Asia/Kathmandu", "1986-01-01"),  # by a quarter of an hour, once
]
FIXED = [
    "30 2 * * *",
    "0 0 * * *",
    "15 1-3 * * *",
    "0,20,40 2 * * *",
    "59 23 * * *",
    "10 0,12 * * *",
]
REAL = ["* * * * *", "*/10 * * * *", "30 * * * *", "*/7 */2 * * *", "5 */3 * * *", "* 0-3 * * *"]


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _local(zone: str, text: str) -> int:
    return _ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


def _texts(schedule: str, zone: str, after: str, count: int) -> list[str]:
    """The next ticks as that zone's wall clock shows them."""
    ticks = islice(Schedule(schedule, zone).ticks(_local(zone, after)), count)
    found = [datetime.fromtimestamp(tick / 1000, ZoneInfo(zone)) for tick in ticks]
    return [moment.strftime("%m-%d %H:%M%z") for moment in found]


def _numbers(field: str, most: int) -> set[int]:
    """A field of the few forms that these tests use."""
    base, _, step = field.partition("/")
    found: set[int] = set()
    for part in base.split(","):
        first, _, last = part.partition("-")
        low, high = (0, most) if part == "*" else (int(first), int(last or first))
        found |= set(range(low, high + 1, int(step or 1)))
    return found


def _minutes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[int, datetime]]:
    """Every real minute with what the wall clock shows then."""
    moment = start
    while moment < end:
        yield _ms(moment), moment.astimezone(zone).replace(tzinfo=None, fold=0)
        moment += MINUTE


def _expected(schedule: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[int]:
    minute, hour, *_ = schedule.split()
    minutes, hours = _numbers(minute, 59), _numbers(hour, 23)
    shown = list(_minutes(zone, start, end))
    if "*" in (minute[0], hour[0]):
        return [ms for ms, wall in shown if wall.minute in minutes and wall.hour in hours]
    wall, found = shown[0][1], set[int]()
    while wall <= shown[-1][1]:
        if wall.minute in minutes and wall.hour in hours:
            found.add(next(ms for ms, seen in shown if seen >= wall))
        wall += MINUTE
    return sorted(found)


@pytest.mark.parametrize("schedule", [*FIXED, *REAL])
@pytest.mark.parametrize(("name", "day"), CHANGES)
def test_ticks_around_a_change_are_those_of_the_wall_clock(
    name: str, day: str, schedule: str
) -> None:
    zone = ZoneInfo(name)
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone).astimezone(UTC)
    start, end = noon - timedelta(hours=36), noon + timedelta(hours=30)
    expected = _expected(schedule, zone, start, end)
    made = Schedule(schedule, name)

    assert list(islice(made.ticks(_ms(start) - 1000), len(expected))) == expected
    # From any moment on they are the same: nothing depends on where one begins.
    for moment in range(_ms(start), _ms(end), 47 * 60_000):
        later = [tick for tick in expected if tick > moment]
        assert made.after(moment) == (later[0] if later else made.after(expected[-1]))


@given(
    minute=st.sampled_from(["*", "*/5", "0", "30", "0,45", "10-20", "1-59/7"]),
    hour=st.sampled_from(["*", "*/2", "0", "1", "2", "1,2", "0-3", "2-23/3", "23"]),
    change=st.sampled_from(CHANGES),
    offset_minutes=st.integers(-2000, 1000),
)
@settings(max_examples=60, deadline=None)
@example(minute="10-20", hour="2", change=CHANGES[1], offset_minutes=-655)
def test_any_schedule_from_any_moment_is_that_of_the_wall_clock(
    minute: str, hour: str, change: tuple[str, str], offset_minutes: int
) -> None:
    name, day = change
    zone = ZoneInfo(name)
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone).astimezone(UTC)
    start = noon + timedelta(minutes=offset_minutes)
    # The oracle begins earlier: a fixed time that began before `start` is not due again in it.
    before = start - timedelta(hours=3)
    expected = _expected(f"{minute} {hour} * * *", zone, before, start + timedelta(hours=30))
    expected = [tick for tick in expected if tick > _ms(start)]

    ticks = Schedule(f"{minute} {hour} * * *", name).ticks(_ms(start))

    assert list(islice(ticks, len(expected))) == expected


def test_a_fixed_time_that_the_clock_skips_comes_at_the_change() -> None:
    found = _texts("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2)
    assert found == ["03-29 03:00+0200", "03-30 02:30+0200"]

    found = _texts("0 0 * * *", "America/Sao_Paulo", "2017-10-14T12:00", 2)
    assert found == ["10-15 01:00-0200", "10-16 00:00-0200"]

    found = _texts("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", 2)
    assert found == ["10-04 02:30+1100", "10-05 02:15+1100"]


def test_fixed_times_that_are_skipped_together_are_one_tick() -> None:
    found = _texts("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", 3)

    assert found == ["03-29 03:00+0200", "03-29 03:30+0200", "03-30 02:00+0200"]


def test_a_fixed_time_that_the_clock_shows_twice_comes_once() -> None:
    found = _texts("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2)
    assert found == ["10-25 02:30+0200", "10-26 02:30+0100"]

    found = _texts("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", 2)
    assert found == ["04-05 01:45+1100", "04-06 01:45+1030"]


def test_what_comes_often_follows_real_time() -> None:
    found = _texts("*/30 * * * *", "America/New_York", "2026-11-01T00:50", 5)
    assert found == [f"11-01 {time}" for time in ("01:00-0400", "01:30-0400", "01:00-0500",
                                                  "01:30-0500", "02:00-0500")]  # fmt: skip

    found = _texts("*/30 * * * *", "America/New_York", "2026-03-08T01:20", 2)
    assert found == ["03-08 01:30-0500", "03-08 03:00-0400"]


def test_an_interval_knows_no_zone() -> None:
    spring = _local("Europe/Berlin", "2026-03-29T01:59:30")
    ticks = list(islice(Schedule("@every 20m", "Europe/Berlin").ticks(spring), 4))

    assert ticks[0] % 1_200_000 == 0
    assert [b - a for a, b in pairwise(ticks)] == [1_200_000] * 3


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("@hourly", ["01-31 13:00", "01-31 14:00"]),
        ("@daily", ["02-01 00:00", "02-02 00:00"]),
        ("@Midnight", ["02-01 00:00", "02-02 00:00"]),
        ("@weekly", ["02-01 00:00", "02-08 00:00"]),
        ("@monthly", ["02-01 00:00", "03-01 00:00"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00"]),
        ("0 9 * * mon-fri", ["02-02 09:00", "02-03 09:00"]),
        ("0 9 1 jan,jul *", ["07-01 09:00", "01-01 09:00"]),
        ("0 9 13 * fri", ["02-06 09:00", "02-13 09:00"]),
        ("0 9 L * *", ["02-28 09:00", "03-31 09:00"]),
        ("0 9 * * MON#1", ["02-02 09:00", "03-02 09:00"]),
        ("  0   9 * *  0 ", ["02-01 09:00", "02-08 09:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00"]),
        ("30 15 12 * * *", ["02-01 12:15", "02-02 12:15"]),
        ("@every 12h", ["02-01 00:00", "02-01 12:00"]),
    ],
)
def test_an_expression_means_what_cron_means(schedule: str, expected: list[str]) -> None:
    found = _texts(schedule, "UTC", "2026-01-31T12:30:00", 2)

    assert [text.removesuffix("+0000") for text in found] == expected


def test_seconds_come_first_of_six_fields() -> None:
    start = _local("UTC", "2026-01-31T12:00:07")
    ticks = list(islice(Schedule("*/20 * * * * *").ticks(start), 3))

    assert [tick - start for tick in ticks] == [13_000, 33_000, 53_000]


@pytest.mark.parametrize(
    ("schedule", "zone", "expected"),
    [
        ("61 * * * *", "UTC", "minute '61' is not possible; allowed are 0-59"),
        ("* 24 * * *", "UTC", "hour '24' is not possible; allowed are 0-23"),
        ("* * 0 * *", "UTC", "day of month '0' is not possible; allowed are 1-31"),
        ("* * * 13 *", "UTC", "month '13' is not possible; allowed are 1-12 or JAN-DEC"),
        ("* * * * FRI-MON", "UTC", "day of week 'FRI-MON' is not possible; allowed are 0-7"),
        ("60 * * * * *", "UTC", "second '60' is not possible; allowed are 0-59"),
        ("*/0 * * * *", "UTC", "minute '*/0' is not possible"),
        ("5-1 * * * *", "UTC", "minute '5-1' is not possible"),
        ("² * * * *", "UTC", "minute '²' is not possible"),
        ("0 3 * *", "UTC", "has 4 fields, not 5"),
        ("0 3 * * * * *", "UTC", "has 7 fields, not 5"),
        ("@reboot", "UTC", "'@reboot' is not a known name: @hourly"),
        ("0 0 31 2 *", "UTC", "never comes: month '2' has no day '31'"),
        ("* * */20 * 1L", "UTC", "never comes within 50 years"),
        ("* 2 * 3 0L", "Europe/Berlin", "never comes within 50 years"),
        ("", "UTC", 'must be text such as "0 3 * * *"'),
        (" " * 9, "UTC", "must be text"),
        ("1," * 200 + "1 * * * *", "UTC", f"above {MAX_TEXT_CHARACTERS}"),
        ("@every 0s", "UTC", "@every takes 1 s to 366 days in whole seconds, got '0s'"),
        ("@every 500ms", "UTC", "in whole seconds, got '500ms'"),
        ("@every 367d", "UTC", "takes 1 s to 366 days"),
        ("@every soon", "UTC", "@every: 'soon' is not a duration"),
        ("@every", "UTC", "@every"),
        ("0 3 * * *", "Europe/Berlim", "did you mean 'Europe/Berlin'?"),
        ("0 3 * * *", "Europe", "timezone 'Europe' is not a time zone"),
        ("0 3 * * *", "../../etc/passwd", "is not a time zone"),
        ("0 3 * * *", "/etc/localtime", "is not a time zone"),
        ("0 3 * * *", "", "is not a time zone"),
    ],
)
def test_a_mistake_names_the_field_and_what_may_stand_there(
    schedule: str, zone: str, expected: str
) -> None:
    with pytest.raises(CronError) as caught:
        Schedule(schedule, zone)

    assert expected in str(caught.value)
    assert caught.value.where in ("schedule", "timezone")


@pytest.mark.parametrize(
    "schedule", ["* * * * *", "0 3 * * *", "@every 7s", "0 0 29 2 *", "*/3 1 * * * *"]
)
def test_the_latest_tick_is_the_last_one_that_comes(schedule: str) -> None:
    made = Schedule(schedule, "Europe/Berlin")
    until = _local("Europe/Berlin", "2026-10-25T02:59:59")
    floor = until - 40 * 365 * 86_400_000
    latest = made.latest(until, after_ms=floor)

    assert latest is not None
    assert latest <= until
    following = made.after(latest)
    assert following is not None
    assert following > until
    assert made.latest(latest, after_ms=latest - 1000) == latest
    assert made.latest(until, after_ms=latest) is None


_FIELD = st.text(alphabet="0123456789*/,-#LWSUNMON?@ ²", max_size=8)


@given(
    schedule=st.one_of(
        st.text(max_size=60),
        st.lists(_FIELD, min_size=5, max_size=6).map(" ".join),
        _FIELD.map(lambda text: f"@every {text}"),
    ),
    zone=st.one_of(st.just("UTC"), st.text(max_size=30), st.sampled_from(["Asia/Kathmandu"])),
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_schedule_or_a_clear_error(schedule: str, zone: str) -> None:
    try:
        made = Schedule(schedule, zone)
    except CronError:
        return
    first = made.after(1_800_000_000_000)
    assert first is None or first > 1_800_000_000_000
