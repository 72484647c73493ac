from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluvial.log_files import LEVELS, LogPosition, segment_path, time_text
from fluvial_gateway.log_reading import LogFilter, LogPage, position_of_last, read_page

START_MS = 1_800_000_000_000
Record = dict[str, Any]


def write(folder: Path, records: list[Record], *, segment: int = 50) -> None:
    """Write records as the invoker does, so many to a segment."""
    folder.mkdir(exist_ok=True)
    for begin in range(0, len(records), segment):
        part = records[begin : begin + segment]
        path = segment_path(folder, START_MS + part[0]["n"] * 1000)
        lines = [
            json.dumps({"time": time_text(START_MS + record["n"] * 1000), **record}, **COMPACT)
            for record in part
        ]
        path.write_text("\n".join(lines) + "\n")


COMPACT: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False}


def varied(count: int, seed: int) -> list[Record]:
    """Records of every sort, some with the same time."""
    chance = random.Random(seed)
    n = 0
    records: list[Record] = []
    for number in range(count):
        n += chance.choice((0, 1, 1, 5))
        record: Record = {
            "n": n,
            "number": number,
            "level": chance.choice(LEVELS),
            "message": chance.choice(("plain", 'quo"ted', "two\nlines", "größe €", "x" * 3000)),
        }
        for name, values in (("run", ("r1", "r2")), ("invocation", ("i1", "i2", "i3"))):
            if chance.random() < 0.7:
                record[name] = chance.choice(values)
        records.append(record)
    return records


def at(n: int) -> int:
    return START_MS + n * 1000


def wanted_by(records: list[Record], wanted: LogFilter) -> list[int]:
    """The plain meaning of a filter."""
    return [
        record["number"]
        for record in records
        if wanted.run in (None, record.get("run"))
        and wanted.invocation in (None, record.get("invocation"))
        and LEVELS.index(record["level"]) >= LEVELS.index(wanted.level or "debug")
        and (wanted.text or "") in record["message"]
        and at(record["n"]) >= (wanted.since_ms or 0)
        and at(record["n"]) < (wanted.until_ms or START_MS * 2)
    ]


def numbers(page: LogPage) -> list[int]:
    return [record["number"] for _, record in page.records]


def read_all(folder: Path, wanted: LogFilter, start: LogPosition | None, limit: int) -> list[int]:
    found: list[int] = []
    while True:
        page = read_page(folder, wanted, start, limit=limit)
        assert len(page.records) <= limit
        found += numbers(page)
        if page.done:
            return found
        start = page.next


FILTERS = [
    LogFilter(),
    LogFilter(run="r1"),
    LogFilter(run="r1", invocation="i2", level="warning"),
    LogFilter(text='quo"'),
    LogFilter(text="o\nl"),
    LogFilter(text="ö"),
    LogFilter(text="n"),  # stands in the escape of a newline too, which is no n
    LogFilter(since_ms=at(100)),
    LogFilter(since_ms=at(100), until_ms=at(200), level="error"),
    LogFilter(until_ms=at(3)),
    LogFilter(since_ms=at(100_000)),
]


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("wanted", FILTERS, ids=range(len(FILTERS)))
def test_pages_together_are_what_a_filter_means(
    tmp_path: Path, wanted: LogFilter, limit: int
) -> None:
    records = varied(400, seed=limit)
    write(tmp_path, records)

    assert read_all(tmp_path, wanted, None, limit) == wanted_by(records, wanted)


@pytest.mark.parametrize("wanted", FILTERS, ids=range(len(FILTERS)))
def test_the_last_records_are_what_a_filter_means(tmp_path: Path, wanted: LogFilter) -> None:
    records = varied(400, seed=5)
    write(tmp_path, records)

    for count in (1, 3, 60, 1000):
        position = position_of_last(tmp_path, wanted, count)
        expected = wanted_by(records, wanted)[-count:]
        assert read_all(tmp_path, wanted, position, 1000)[:count] == expected


def test_every_time_is_found_by_halving(tmp_path: Path) -> None:
    records = varied(300, seed=9)
    write(tmp_path, records, segment=120)

    for n in range(-1, records[-1]["n"] + 2):
        wanted = LogFilter(since_ms=at(n))
        assert read_all(tmp_path, wanted, None, 1000) == wanted_by(records, wanted), n


def test_a_position_is_behind_the_record_it_is_given_with(tmp_path: Path) -> None:
    records = varied(120, seed=2)
    write(tmp_path, records)
    page = read_page(tmp_path, LogFilter(), None, limit=1000)

    for position, record in page.records:
        rest = read_page(tmp_path, LogFilter(), position, limit=1000)
        assert numbers(rest) == list(range(record["number"] + 1, 120))


def test_an_unfinished_line_waits_for_its_end(tmp_path: Path) -> None:
    write(tmp_path, varied(3, seed=1))
    page = read_page(tmp_path, LogFilter(), None, limit=10)
    path = segment_path(tmp_path, page.next.start_ms)
    whole = json.dumps({"time": time_text(at(99)), "number": 3, "level": "info"}, **COMPACT)
    with path.open("a") as file:
        file.write(whole[:30])
    waiting = read_page(tmp_path, LogFilter(), page.next, limit=10)
    assert (numbers(waiting), waiting.next, waiting.done) == ([], page.next, True)
    assert position_of_last(tmp_path, LogFilter(), 0) == page.next
    with path.open("a") as file:
        file.write(whole[30:] + "\n")

    assert numbers(read_page(tmp_path, LogFilter(), page.next, limit=10)) == [3]


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    records = varied(4, seed=1)
    write(tmp_path, records, segment=2)
    for path in tmp_path.iterdir():
        path.write_bytes(b'{"time":"20\n[1]\n7\n\xff\xfe\n\n' + path.read_bytes() + b"torn")

    assert read_all(tmp_path, LogFilter(), None, 10) == [0, 1, 2, 3]
    position = position_of_last(tmp_path, LogFilter(), 3)
    assert read_all(tmp_path, LogFilter(), position, 10) == [1, 2, 3]


def test_a_page_looks_at_a_bounded_part(tmp_path: Path) -> None:
    records = [
        {"n": n, "number": n, "level": "info", "message": "m" * 60_000, "run": "r1"}
        for n in range(700)
    ]
    records[-1]["run"] = "r2"
    write(tmp_path, records, segment=300)
    page = read_page(tmp_path, LogFilter(run="r2"), None, limit=10)

    assert (numbers(page), page.done) == ([], False)
    assert read_all(tmp_path, LogFilter(run="r2"), None, 10) == [699]
    assert len(read_page(tmp_path, LogFilter(), None, limit=1000).records) < 30


@pytest.mark.parametrize("wanted", FILTERS, ids=range(len(FILTERS)))
def test_the_last_records_are_found_over_several_blocks(tmp_path: Path, wanted: LogFilter) -> None:
    records = varied(1500, seed=11)  # a megabyte in one segment
    write(tmp_path, records, segment=2000)

    assert read_all(tmp_path, wanted, None, 1000) == wanted_by(records, wanted)
    for count in (1, 400, 1000):
        position = position_of_last(tmp_path, wanted, count)
        expected = wanted_by(records, wanted)[-count:]
        assert read_all(tmp_path, wanted, position, 1000)[:count] == expected


def test_it_is_told_when_a_position_has_been_swept_away(tmp_path: Path) -> None:
    write(tmp_path, varied(120, seed=3))
    first = read_page(tmp_path, LogFilter(), None, limit=10)
    segment_path(tmp_path, first.next.start_ms).unlink()
    page = read_page(tmp_path, LogFilter(), first.next, limit=1000)

    assert (first.missed, page.missed) == (False, True)
    assert numbers(page) == list(range(50, 120))


def test_an_app_without_a_log_has_an_empty_one_that_may_begin(tmp_path: Path) -> None:
    empty = read_page(tmp_path / "new", LogFilter(), None, limit=10)
    assert (empty.records, empty.done, empty.missed) == ((), True, False)
    assert position_of_last(tmp_path / "new", LogFilter(), 5) == empty.next
    write(tmp_path / "new", varied(2, seed=1))
    page = read_page(tmp_path / "new", LogFilter(), empty.next, limit=10)

    assert (numbers(page), page.missed) == ([0, 1], False)


def test_a_forged_position_reads_nothing_that_is_no_record(tmp_path: Path) -> None:
    write(tmp_path, varied(3, seed=1))
    page = read_page(tmp_path, LogFilter(), None, limit=1)

    middle = replace(page.next, offset=page.next.offset + 5)
    assert numbers(read_page(tmp_path, LogFilter(), middle, limit=10)) == [2]
    beyond = replace(page.next, offset=10**9)
    assert numbers(read_page(tmp_path, LogFilter(), beyond, limit=10)) == []
