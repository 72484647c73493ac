"""Shapes: JSON and plain objects become what the annotation says, or are refused with a path."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel

from fluvial.codec import decode, encode, encode_json
from fluvial.errors import SerializationError

OrderId = NewType("OrderId", int)


class Size(Enum):
    S = "s"
    L = "l"


class Position(NamedTuple):
    x: int
    y: float


class Options(TypedDict, total=False):
    when: date


@dataclass(frozen=True)
class Line:
    sku: str
    count: int = 1
    tags: frozenset[str] = frozenset()


@dataclass
class Basket:
    lines: list[Line]
    owner: Person | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class Person(BaseModel):
    name: str
    born: date | None = None


@pytest.mark.parametrize(
    ("annotation", "given", "wanted"),
    [
        (int, 3, 3),
        (int, 3.0, 3),
        (float, 3, 3.0),
        (str, "x", "x"),
        (bool, True, True),
        (None, [1], [1]),
        (Any, {"a": 1}, {"a": 1}),
        (bytes, "aGk=", b"hi"),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (date, "2026-01-02", date(2026, 1, 2)),
        (timedelta, 90, timedelta(seconds=90)),
        (timedelta, "1h 30m", timedelta(minutes=90)),
        (Decimal, "1.10", Decimal("1.10")),
        (Decimal, 2, Decimal(2)),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (Path, "/a", Path("/a")),
        (Size, "s", Size.S),
        (list[Size], ["s", "l"], [Size.S, Size.L]),
        (set[int], [1, 2, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (set, [1], {1}),
        (dict[int, Size], {"1": "s"}, {1: Size.S}),
        (Optional[Size], None, None),  # noqa: UP045 - old spelling on purpose
        (Size | None, "l", Size.L),
        (int | str, "5", "5"),
        (datetime | str, "no date", "no date"),
        (Literal["a", "b"], "a", "a"),
        (Annotated[Size, "doc"], "s", Size.S),
        (OrderId, 5, 5),
        (Position, [1, 2], Position(1, 2.0)),
        (Position, {"x": 1, "y": 2}, Position(1, 2.0)),
        (Options, {"when": "2026-01-02"}, {"when": date(2026, 1, 2)}),
        (Line, {"sku": "a", "tags": ["x"]}, Line("a", 1, frozenset({"x"}))),
        (
            Basket,
            {"lines": [{"sku": "a"}], "owner": {"name": "ada", "born": "1815-12-10"}},
            Basket([Line("a")], Person(name="ada", born=date(1815, 12, 10))),
        ),
        (list[Person | Line], [{"name": "ada"}, {"sku": "x"}], [Person(name="ada"), Line("x")]),
    ],
)
def test_json_takes_the_annotated_type(annotation: Any, given: Any, wanted: Any) -> None:
    back = decode(encode_json(given), annotation)

    assert back == wanted
    assert type(back) is type(wanted)


@pytest.mark.parametrize(
    ("annotation", "given", "path"),
    [
        (int, "3", "value"),
        (int, True, "value"),
        (int, 3.5, "value"),
        (str, 3, "value"),
        (bool, 1, "value"),
        (list[int], ["x"], "value[0]"),
        (list[int], 5, "value"),
        (tuple[int, str], [1], "value"),
        (dict[str, Size], {"a": "xl"}, "value['a']"),
        (dict[int, int], {"x": 1}, "value"),
        (Literal["a"], "b", "value"),
        (datetime, "yesterday", "value"),
        (timedelta, -1, "value"),
        (Size | None, "xl", "value"),
        (Line, {"sku": "a", "colour": "red"}, "value"),
        (Line, {}, "value"),
        (Line, "a", "value"),
        (Basket, {"lines": [{"sku": 3}]}, "value.lines[0].sku"),
        (Person, {"name": []}, "value"),
        (bytes, "not base64!", "value"),
    ],
)
def test_json_that_does_not_fit_is_named(annotation: Any, given: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        decode(encode_json(given), annotation)

    assert caught.value.path == path


@pytest.mark.parametrize(
    ("annotation", "given", "wanted"),
    [
        (Line, {"sku": "a"}, Line("a")),
        (Person, {"name": "ada"}, Person(name="ada")),
        (list[Line], [Line("a"), {"sku": "b"}], [Line("a"), Line("b")]),
        (Line | None, None, None),
        (int, "not an int", "not an int"),  # as in any Python call: annotations do not check
        (list[int], ["x"], ["x"]),
    ],
)
def test_stored_values_are_shaped_only_where_a_class_is_wanted(
    annotation: Any, given: Any, wanted: Any
) -> None:
    assert decode(encode(given), annotation) == wanted


def test_a_class_that_is_not_importable_comes_back_through_the_annotation() -> None:
    @dataclass
    class Local:
        number: int

    assert decode(encode(Local(3))) == {"number": 3}
    assert decode(encode(Local(3)), Local) == Local(3)
