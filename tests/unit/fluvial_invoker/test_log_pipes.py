from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluvial.log_files import segments
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.log_pipes import (
    BURST_BYTES,
    MAX_LINE_BYTES,
    RATE_BYTES_PER_SECOND,
    TAIL_BYTES,
    LogPipe,
    Origin,
)

ORIGIN = Origin(deployment="dpl_1", instance="ins_1")


class Piped:
    """A pipe into a log, and its clock."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self._folder = folder / "demo"
        self.logs = AppLogs(folder)
        self.pipe = LogPipe(ORIGIN, self.logs.take("demo"), monotonic=lambda: self.now)

    def records(self) -> list[dict[str, Any]]:
        texts = [segment.path.read_text() for segment in segments(self._folder)]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def messages(self) -> list[str]:
        return [record["message"] for record in self.records()]


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Piped]:
    piped = Piped(tmp_path)
    yield piped
    piped.logs.release("demo")


def structured(**members: object) -> bytes:
    said: dict[str, object] = {
        "at_ms": 0,
        "level": "info",
        "stream": "stdout",
        "invocation": None,
        "kind": None,
        "function": None,
        "run": None,
        "step": None,
        "attempt": None,
        "logger": None,
        "message": "",
        "fields": None,
        **members,
    }
    return b"\x1e" + json.dumps(list(said.values())).encode() + b"\n"


def test_a_structured_line_keeps_its_members(piped: Piped) -> None:
    members = {
        "level": "warning",
        "stream": "logging",
        "invocation": "inv_1",
        "kind": "step",
        "function": "main.charge",
        "run": "run_1",
        "step": 3,
        "attempt": 2,
        "logger": "shop.orders",
        "message": "two\nlines",
        "fields": {"order": "o-1", "cents": 420, "parts": [1, {"a": None}]},
    }
    piped.pipe.feed(structured(**members))

    (record,) = piped.records()
    assert record.pop("time")
    assert record == {"app": "demo", "deployment": "dpl_1", "instance": "ins_1", **members}


def test_a_line_may_come_in_pieces(piped: Piped) -> None:
    for byte in b"ab\ncd":
        piped.pipe.feed(bytes([byte]))
    assert piped.messages() == ["ab"]
    piped.pipe.end()

    assert piped.messages() == ["ab", "cd"]


@pytest.mark.parametrize(
    "line",
    [
        b"\x1e[]",
        b"\x1e[1, 2]",
        structured(at_ms="x")[:-1],
        structured(at_ms=-1)[:-1],
        structured(at_ms=10**30)[:-1],
        structured(message=7)[:-1],
        b"\x1e{",
        b"\x1e\xff",
        b"\x1e" + b"[" * 50_000,
    ],
    ids=["empty", "short", "text-time", "before-1970", "huge", "number", "torn", "bytes", "deep"],
)
def test_malformed_structured_lines_are_raw_text(piped: Piped, line: bytes) -> None:
    piped.pipe.feed(line + b"\n")

    (record,) = piped.records()
    assert (record["stream"], record["level"]) == ("raw", "info")


def test_what_a_line_claims_to_be_is_one_of_what_there_is(piped: Piped) -> None:
    piped.pipe.feed(
        structured(level="loud", stream="sewer", kind="instance", step=-1, attempt=True, fields=[1])
    )

    (record,) = piped.records()
    assert (record["level"], record["stream"]) == ("info", "raw")
    assert not {"kind", "step", "attempt", "fields"} & record.keys()


def test_control_characters_are_stripped_from_every_member(piped: Piped) -> None:
    evil = "a\x1b[2Jb\x9bc\rd\te"
    piped.pipe.feed(structured(message=evil, run=evil, logger="r\nun", fields={evil: [evil]}))
    piped.pipe.feed(b"raw " + evil.encode() + b"\n")

    record, raw = piped.records()
    assert record["message"] == "a[2Jbcd\te"
    assert (record["run"], record["logger"]) == ("a[2Jbcd e", "r un")
    assert record["fields"] == {"a[2Jbcd e": ["a[2Jbcd\te"]}
    assert raw["message"] == "raw a[2Jbcd\te"


def test_fields_are_bounded_in_number_size_and_depth(piped: Piped) -> None:
    deep: Any = "end"
    for _ in range(50):
        deep = {"d": deep}
    many = {f"n{number}": "x" * 300 for number in range(150)}
    piped.pipe.feed(structured(fields={"deep": deep, "nan": float("nan"), **many}))

    (record,) = piped.records()
    assert len(record["fields"]) <= 64
    assert len(json.dumps(record["fields"])) < 20_000
    assert record["fields"]["nan"] == "nan"
    assert json.dumps(record["fields"]["deep"]).count("d") < 10


def test_a_line_without_end_is_cut(piped: Piped) -> None:
    for _ in range(10):
        piped.pipe.feed(b"x" * 50_000)
    piped.pipe.end()

    assert max(map(len, piped.messages())) <= MAX_LINE_BYTES


def test_the_rate_is_limited_and_what_is_lost_is_told(piped: Piped) -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(3 * BURST_BYTES // 1024):
        piped.pipe.feed(line)
    kept = len(piped.records())
    assert kept <= BURST_BYTES // 1023
    dropped = 3 * BURST_BYTES // 1024 - kept
    piped.now = 1.0
    for _ in range(2 * RATE_BYTES_PER_SECOND // 1024):
        piped.pipe.feed(line)
    after = piped.records()[kept:]

    assert after[0]["level"] == "warning"
    assert after[0]["fields"] == {"dropped_lines": dropped, "dropped_bytes": dropped * 1023}
    assert len(after) <= RATE_BYTES_PER_SECOND // 1023 + 1


def test_what_is_dropped_last_is_told_at_the_end(piped: Piped) -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(2 * BURST_BYTES // 1024):
        piped.pipe.feed(line)
    piped.pipe.end()

    assert piped.records()[-1]["fields"]["dropped_lines"] > 0


def test_the_tail_is_the_end_of_what_was_written(piped: Piped) -> None:
    for number in range(2000):
        piped.pipe.feed(b"line %d\n" % number)

    assert piped.pipe.tail.endswith("line 1998\nline 1999")
    assert len(piped.pipe.tail) <= TAIL_BYTES


def test_only_the_invoker_speaks_of_the_instance(piped: Piped) -> None:
    piped.pipe.tell("info", "instance ready", {"tier": "fork"})

    (record,) = piped.records()
    assert (record["kind"], record["instance"]) == ("instance", "ins_1")
    assert record["fields"] == {"tier": "fork"}
