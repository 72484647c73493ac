from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.log_files import LogLimits, LogPosition, segment_path, segments, sweep, time_text

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


def put(folder: Path, hours_ago: int, size: int) -> Path:
    """Make a segment that was begun, and written last, so many hours ago."""
    path = segment_path(folder, NOW_MS - hours_ago * HOUR_MS)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    seconds = NOW_MS / 1000 - hours_ago * 3600
    os.utime(path, (seconds, seconds))
    return path


def left(folder: Path) -> list[int]:
    return [(NOW_MS - segment.start_ms) // HOUR_MS for segment in segments(folder)]


def test_a_position_is_read_as_it_was_written() -> None:
    assert LogPosition.parse(str(LogPosition(17, 4))) == LogPosition(17, 4)
    assert LogPosition(17, 4) < LogPosition(17, 5) < LogPosition(18, 0)


@pytest.mark.parametrize("text", ["", "1", "1.", "-1.2", "1.2.3", "1" * 14 + ".0", "a.b", "1.2\n"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not a position"):
        LogPosition.parse(text)


def test_segments_are_sorted_and_other_files_are_none(tmp_path: Path) -> None:
    for name in ("notes.txt", "12.jsonl", "0000000000002.jsonl.gz"):
        (tmp_path / name).touch()
    for start in (3, 1, 2):
        segment_path(tmp_path, start).touch()

    assert [segment.start_ms for segment in segments(tmp_path)] == [1, 2, 3]
    assert segments(tmp_path / "nobody") == []


def test_texts_of_times_compare_as_the_times_do() -> None:
    times = [0, 1, 999, 1000, NOW_MS, NOW_MS + 1, 253_402_300_799_999]

    assert sorted(map(time_text, times)) == [time_text(at) for at in times]
    assert {len(time_text(at)) for at in times} == {24}


def test_what_is_older_than_the_retention_goes(tmp_path: Path) -> None:
    for hours in (1, 23, 25, 90):
        put(tmp_path / "shop", hours, 10)
    put(tmp_path / "closed", 30, 10)

    assert sweep(tmp_path, LogLimits(retention_seconds=86_400), NOW_MS) == 3
    assert left(tmp_path / "shop") == [23, 1]
    assert not (tmp_path / "closed").exists()


def test_the_oldest_of_an_app_that_has_too_much_go(tmp_path: Path) -> None:
    for hours in range(5):
        put(tmp_path / "loud", hours, 100)
    put(tmp_path / "quiet", 9, 100)

    sweep(tmp_path, LogLimits(app_bytes=250), NOW_MS)

    assert left(tmp_path / "loud") == [1, 0]
    assert left(tmp_path / "quiet") == [9]


def test_the_oldest_of_all_go_but_no_segment_that_may_be_open(tmp_path: Path) -> None:
    for app, hours in (("one", 4), ("one", 2), ("two", 3), ("two", 1), ("two", 0)):
        put(tmp_path / app, hours, 100)

    sweep(tmp_path, LogLimits(total_bytes=350), NOW_MS)
    assert (left(tmp_path / "one"), left(tmp_path / "two")) == ([2], [1, 0])

    sweep(tmp_path, LogLimits(total_bytes=1), NOW_MS)
    assert (left(tmp_path / "one"), left(tmp_path / "two")) == ([2], [0])


def test_there_may_be_no_logs_at_all(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", LogLimits(), NOW_MS) == 0
