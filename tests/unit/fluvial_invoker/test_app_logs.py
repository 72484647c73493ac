import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluvial_invoker.app_logs import (
    BURST_BYTES,
    MAX_LINE_BYTES,
    RATE_BYTES_PER_SECOND,
    TAIL_BYTES,
    AppLog,
    AppLogs,
    LogPipe,
    Origin,
)

ORIGIN = Origin(app="demo", deployment="dpl_1", instance="ins_1")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Piped = tuple[LogPipe, Clock, Path]


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Piped]:
    path = tmp_path / "apps" / "demo.log"
    clock, log = Clock(), AppLog(path)
    yield LogPipe(ORIGIN, log, monotonic=clock), clock, path
    log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def structured(*fields: object) -> bytes:
    return b"\x1e" + json.dumps(fields).encode() + b"\n"


def test_structured_line_keeps_its_fields(piped: Piped) -> None:
    log, _, path = piped
    log.feed(structured(0, "warning", "inv_1", "run_1", "two\nlines"))

    assert lines(path) == [
        {
            "ts": "1970-01-01T00:00:00.000Z",
            "level": "warning",
            "app": "demo",
            "deployment": "dpl_1",
            "instance": "ins_1",
            "invocation": "inv_1",
            "run": "run_1",
            "text": "two\nlines",
        }
    ]


def test_line_may_come_in_pieces(piped: Piped) -> None:
    log, _, path = piped
    for byte in b"ab\ncd":
        log.feed(bytes([byte]))
    assert [line["text"] for line in lines(path)] == ["ab"]
    log.end()

    assert [line["text"] for line in lines(path)] == ["ab", "cd"]


def test_malformed_structured_lines_are_raw_text(piped: Piped) -> None:
    log, _, path = piped
    for fields in ((), (1, 2), ("x", "info", None, None, "t"), (-1, "info", None, None, "t")):
        log.feed(structured(*fields))
    log.feed(structured(10**30, "info", None, None, "t"))
    log.feed(b"\x1e{\n\x1e\xff\n")

    assert {line["level"] for line in lines(path)} == {"raw"}
    assert len(lines(path)) == 7


def test_control_characters_are_stripped_from_every_field(piped: Piped) -> None:
    log, _, path = piped
    log.feed(structured(0, "in\x1bfo", "in\x00v", "r\nun", "a\x1b[2Jb\x9bc\rd\te"))

    (line,) = lines(path)
    assert (line["level"], line["invocation"], line["run"]) == ("info", "inv", "r un")
    assert line["text"] == "a[2Jbcd\te"


def test_line_without_end_is_cut(piped: Piped) -> None:
    log, _, path = piped
    for _ in range(10):
        log.feed(b"x" * 50_000)
    log.end()

    assert max(len(line["text"]) for line in lines(path)) <= MAX_LINE_BYTES


def test_rate_is_limited_and_what_is_lost_is_said(piped: Piped) -> None:
    log, clock, path = piped
    line = b"x" * 1023 + b"\n"
    for _ in range(3 * BURST_BYTES // 1024):
        log.feed(line)
    kept = len(lines(path))
    assert kept <= BURST_BYTES // 1023
    clock.now = 1.0
    for _ in range(2 * RATE_BYTES_PER_SECOND // 1024):
        log.feed(line)
    after = lines(path)[kept:]

    assert "bytes dropped" in after[0]["text"]
    assert len(after) <= RATE_BYTES_PER_SECOND // 1023 + 1


def test_the_end_says_what_was_dropped_and_the_last_words(piped: Piped) -> None:
    log, _, path = piped
    for _ in range(2 * BURST_BYTES // 1024):
        log.feed(b"x" * 1023 + b"\n")
    log.end("the instance has ended")
    *_, dropped, last = lines(path)

    assert "bytes dropped" in dropped["text"]
    assert (last["level"], last["text"]) == ("error", "the instance has ended")


def test_tail_is_the_end_of_what_was_written(piped: Piped) -> None:
    log, _, _ = piped
    for number in range(2000):
        log.feed(b"line %d\n" % number)

    assert log.tail.endswith("line 1998\nline 1999")
    assert len(log.tail) <= TAIL_BYTES


def test_file_is_rotated_once(tmp_path: Path) -> None:
    path = tmp_path / "demo.log"
    log = AppLog(path, max_file_bytes=100)
    for number in range(100):
        log.write([b"%09d\n" % number])
    log.close()

    assert path.stat().st_size <= 100
    assert (tmp_path / "demo.log.1").stat().st_size <= 100
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["demo.log", "demo.log.1"]
    assert path.read_text().endswith("000000099\n")


def test_instances_of_one_app_share_its_file(tmp_path: Path) -> None:
    logs = AppLogs(tmp_path)
    first, second = logs.take("demo"), logs.take("demo")
    logs.release("demo")
    second.write([b"still open\n"])
    logs.release("demo")

    assert first is second
    assert logs.take("demo") is not first
    logs.release("demo")
