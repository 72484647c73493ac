from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluvial.log_files import LogLimits, segments
from fluvial_invoker.app_logs import AppLog, AppLogs
from fluvial_invoker.log_records import LogRecord

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


class Desk:
    """One app's log, a clock, and what was told of it."""

    def __init__(self, folder: Path, *, segment_bytes: int = 10_000) -> None:
        self.folder = folder
        self.now_ms = START_MS
        self.written: list[str] = []
        self.begun = 0
        self.segment_bytes = segment_bytes
        self.log = self.open()

    def open(self) -> AppLog:
        return AppLog(
            self.folder,
            app="demo",
            on_written=self.written.append,
            on_begun=self._count,
            segment_bytes=self.segment_bytes,
            now_ms=lambda: self.now_ms,
        )

    def _count(self) -> None:
        self.begun += 1

    def say(self, message: str, at_ms: int | None = None) -> None:
        self.log.write([LogRecord(level="info", message=message, at_ms=at_ms)])

    def records(self) -> list[dict[str, Any]]:
        texts = [segment.path.read_text() for segment in segments(self.folder)]
        return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "demo")
    yield desk
    desk.log.close()


def test_a_record_is_a_line_and_what_does_not_apply_is_left_out(desk: Desk) -> None:
    desk.say("hello")

    assert desk.records() == [
        {
            "time": "2027-01-15T08:00:00.000Z",
            "level": "info",
            "app": "demo",
            "stream": "system",
            "message": "hello",
        }
    ]
    assert desk.written == ["demo"]


def test_time_goes_neither_back_nor_ahead_whatever_records_claim(desk: Desk) -> None:
    desk.say("now")
    desk.now_ms += 500
    desk.say("a little late", at_ms=START_MS + 200)
    desk.say("from the past", at_ms=0)
    desk.say("from the future", at_ms=START_MS * 2)
    desk.now_ms -= 400  # the machine's clock was set back
    desk.say("after that")

    times = [record["time"][-5:-1] for record in desk.records()]
    assert times == [".000", ".200", ".200", ".500", ".500"]


def test_a_segment_ends_when_it_is_large(desk: Desk) -> None:
    for number in range(100):
        desk.now_ms += 1
        desk.say(f"{number:0500d}")

    found = segments(desk.folder)
    assert len(found) == desk.begun > 3
    assert max(segment.path.stat().st_size for segment in found) < 10_000 + 1000
    assert [int(record["message"]) for record in desk.records()] == list(range(100))


def test_a_segment_ends_when_it_is_old(desk: Desk) -> None:
    desk.say("early")
    desk.now_ms += HOUR_MS
    desk.say("late")

    starts = [segment.start_ms for segment in segments(desk.folder)]
    assert starts == [START_MS, START_MS + HOUR_MS]


def test_the_next_writer_goes_on_in_a_young_segment(desk: Desk) -> None:
    desk.say("one")
    desk.log.close()
    (segment,) = segments(desk.folder)
    os.utime(segment.path, (START_MS / 1000 + 2, START_MS / 1000 + 2))
    desk.log = desk.open()
    desk.now_ms += 1000
    desk.say("two")

    assert segments(desk.folder) == [segment]
    # The file was written two seconds after its beginning: nothing stands before that any more.
    assert [record["time"][-7:-1] for record in desk.records()] == ["00.000", "02.000"]


def test_a_line_that_a_killed_writer_has_begun_spoils_only_itself(desk: Desk) -> None:
    desk.say("whole")
    desk.log.close()
    (segment,) = segments(desk.folder)
    with segment.path.open("ab") as file:
        file.write(b'{"time":"2027-01')
    desk.log = desk.open()
    desk.say("next")

    lines = segment.path.read_text().splitlines()
    assert [json.loads(line)["message"] for line in (lines[0], lines[2])] == ["whole", "next"]


def test_what_a_full_disk_does_not_take_is_counted_and_told(tmp_path: Path) -> None:
    blocker = tmp_path / "demo"
    blocker.write_text("a file where the folder should be")
    desk = Desk(blocker)
    for _ in range(3):
        desk.say("lost")
    assert desk.written == []
    blocker.unlink()
    desk.say("kept")
    desk.log.close()

    notice, kept = desk.records()
    assert (notice["level"], notice["fields"]) == ("warning", {"lost_records": 3})
    assert kept["message"] == "kept"


def test_half_a_record_is_never_left_behind(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource
    import signal

    desk.say("whole")
    size = segments(desk.folder)[0].path.stat().st_size
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        desk.say("x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    desk.say("after")

    messages = [record["message"] for record in desk.records()]
    assert messages == ["whole", "1 records were lost: the disk took no more", "after"]


def test_instances_of_one_app_share_its_log(tmp_path: Path) -> None:
    logs = AppLogs(tmp_path)
    first, second = logs.take("demo"), logs.take("demo")
    logs.release("demo")
    second.write([LogRecord(level="info", message="still open")])
    logs.release("demo")

    assert first is second
    assert logs.take("demo") is not first
    logs.release("demo")


def test_a_flood_is_bounded_while_it_comes_in(tmp_path: Path) -> None:
    logs = AppLogs(tmp_path, limits=LogLimits(app_bytes=50_000_000))
    log = logs.take("loud")
    record = LogRecord(level="info", message="f" * 60_000)
    for _ in range(40):
        log.write([record] * 50)
    logs.release("loud")

    # Three segments of 16 MiB fit; the fourth is the open one.
    assert sum(segment.path.stat().st_size for segment in segments(tmp_path / "loud")) < 75_000_000
