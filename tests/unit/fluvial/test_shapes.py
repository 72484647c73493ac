"""Shapes: JSON and plain objects become what the annotation says, or are refused with a path."""

from __future__ import annotations

import ipaddress
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypeAliasType

from fluvial.codec import decode, encode, encode_json
from fluvial.errors import SerializationError
from fluvial.signatures import Signature

T = TypeVar("T")
K = TypeVar("K")

OrderId = NewType("OrderId", int)
Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")
Couple = TypeAliasType("Couple", tuple[T, T], type_params=(T,))
Sizes = TypeAliasType("Sizes", "list[Size]")


class Size(Enum):
    S = "s"
    L = "l"


class Grade(Enum):
    LOW = 1
    HIGH = 2
    PAIR = (1, 2)


class Right(Flag):
    READ = 1
    WRITE = 2


class Grumpy(Enum):
    A = 1

    @classmethod
    def _missing_(cls, value: object) -> Grumpy:
        raise ZeroDivisionError


class Position(NamedTuple):
    x: int
    y: float


class Cell(NamedTuple, Generic[T]):
    content: T
    width: int = 1


class Options(TypedDict, total=False):
    when: date


class Address(TypedDict):
    city: str
    since: NotRequired[date]


class Bag(TypedDict, Generic[T]):
    items: list[T]


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


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list[T])


@dataclass
class DateBox(Box[date]):
    label: str = ""


@dataclass
class Shelf(Box[list[T]], Generic[T, K]):
    """Its T is not that of Box."""

    best: T | None = None
    index: dict[K, T] = field(default_factory=dict[K, T])


@dataclass
class Node:
    value: int
    next: Node | None = None
    children: dict[str, list[Node]] = field(default_factory=dict[str, "list[Node]"])


@dataclass
class Scaled:
    value: float = field(init=False)
    raw: InitVar[Decimal]
    unit: Final[Size] = Size.S

    def __post_init__(self, raw: Decimal) -> None:
        self.value = float(raw * 2)


@dataclass
class Picky:
    number: int

    def __post_init__(self) -> None:
        if self.number == 0:
            raise ZeroDivisionError("nothing")
        if self.number < 0:
            raise ValueError("must not be negative")


class Page(BaseModel, Generic[T]):
    items: list[T]


class Ids(RootModel[set[UUID]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"]
    born: date


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = []


@dataclass
class Circle:
    kind: Literal["circle"]
    radius: float


@dataclass
class Square:
    kind: Literal["square"]
    side: float


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


FITTING: list[tuple[Any, Any, Any]] = [
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
    (bytearray, "aGk=", bytearray(b"hi")),
    (complex, "1+2j", 1 + 2j),
    (Fraction, "1/3", Fraction(1, 3)),
    (Fraction, 2, Fraction(2)),
    (time, "03:04", time(3, 4)),
    (ZoneInfo, "Europe/Berlin", ZoneInfo("Europe/Berlin")),
    (PurePath, "/a", PurePosixPath("/a")),
    (PureWindowsPath, "C:/a", PureWindowsPath("C:/a")),
    (ipaddress.IPv4Address, "10.0.0.1", ipaddress.ip_address("10.0.0.1")),
    (ipaddress.IPv6Network, "2001:db8::/32", ipaddress.ip_network("2001:db8::/32")),
    (range, [1, 5], range(1, 5)),
    (Grade, 2, Grade.HIGH),
    (Grade, "HIGH", Grade.HIGH),
    (Grade, [1, 2], Grade.PAIR),
    (Right, 3, Right.READ | Right.WRITE),
    (deque[Size], ["s"], deque([Size.S])),
    (deque, [1], deque([1])),
    (Sequence[Size], ["s"], [Size.S]),
    (AbstractSet[Size], ["s"], {Size.S}),
    (typing.List[Size], ["s"], [Size.S]),  # noqa: UP006 - old spelling on purpose
    (tuple[()], [], ()),
    (tuple[int, *tuple[str, ...]], [1, "a"], (1, "a")),
    (OrderedDict[str, Size], {"a": "s"}, OrderedDict(a=Size.S)),
    (OrderedDict, {"a": 1}, OrderedDict(a=1)),
    (Counter[Size], {"s": 2}, Counter({Size.S: 2})),
    (defaultdict[str, list[int]], {"a": [1]}, defaultdict(list, {"a": [1]})),
    (Mapping[date, Size], {"2026-01-02": "s"}, {date(2026, 1, 2): Size.S}),
    (dict[OrderId, int], {"1": 2}, {1: 2}),
    (dict[float, int], {"1.5": 2}, {1.5: 2}),
    (dict[bool, int], {"true": 1, "false": 0}, {True: 1, False: 0}),
    (dict[int | None, int], {"1": 1, "null": 0}, {1: 1, None: 0}),
    (dict[int | str, int], {"1": 1, "x": 0}, {1: 1, "x": 0}),
    (dict[Grade, int], {"1": 5, "HIGH": 6}, {Grade.LOW: 5, Grade.HIGH: 6}),
    (dict[Literal[1, "a"], int], {"1": 5, "a": 6}, {1: 5, "a": 6}),
    (dict[UUID, Person], {str(UUID(int=1)): {"name": "a"}}, {UUID(int=1): Person(name="a")}),
    (dict[int, Person], {"1": {"name": "a"}}, {1: Person(name="a")}),
    (Sizes, ["s"], [Size.S]),
    (Couple[Size], ["s", "l"], (Size.S, Size.L)),
    (Json, {"a": ["x", {"b": None}]}, {"a": ["x", {"b": None}]}),
    (Cell[Size], ["s"], Cell(Size.S)),
    (Bag[Size], {"items": ["s"]}, {"items": [Size.S]}),
    (Address, {"city": "a"}, {"city": "a"}),
    (Box[Size], {"content": "s", "more": ["l"]}, Box(Size.S, [Size.L])),
    (DateBox, {"content": "2026-01-02"}, DateBox(date(2026, 1, 2))),
    (
        Shelf[Size, int],
        {"content": ["s"], "more": [["l"]], "best": "s", "index": {"1": "l"}},
        Shelf([Size.S], [[Size.L]], Size.S, {1: Size.L}),
    ),
    (Box, {"content": "s"}, Box("s")),
    (
        Node,
        {"value": 1, "next": {"value": 2}, "children": {"a": [{"value": 3}]}},
        Node(1, Node(2), {"a": [Node(3)]}),
    ),
    (Scaled, {"raw": "1.5", "unit": "l"}, Scaled(Decimal("1.5"), Size.L)),
    (Page[Line], {"items": [{"sku": "a"}]}, Page[Line](items=[Line("a")])),
    (Ids, [str(UUID(int=1))], Ids({UUID(int=1)})),
    (Pet, {"kind": "dog", "tricks": ["roll"]}, Dog(kind="dog", tricks=["roll"])),
    (list[Circle | Square], [{"kind": "square", "side": 2}], [Square("square", 2.0)]),
    (Union[Line, Any], {"x": 1}, {"x": 1}),  # noqa: UP007 - Any refuses |
]


@pytest.mark.parametrize(("annotation", "given", "wanted"), FITTING)
def test_json_takes_the_annotated_type(annotation: Any, given: Any, wanted: Any) -> None:
    back = decode(encode_json(given), annotation)

    assert back == wanted
    assert type(back) is type(wanted)


MISFITS: list[tuple[Any, Any, str]] = [
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
    (Person, {"name": []}, "value.name"),
    (bytes, "not base64!", "value"),
    (Fraction, "1e999999999", "value"),
    (ZoneInfo, "Nowhere/Land", "value"),
    (ZoneInfo, "../../etc/passwd", "value"),
    (ipaddress.IPv4Address, "10.0.0", "value"),
    (Grumpy, 5, "value"),
    (Position, [1, 2, 3], "value"),
    (Address, {"since": "2026-01-01"}, "value"),
    (Address, {"city": "a", "since": 5}, "value.since"),
    (dict[Grade, int], {"7": 1}, "value"),
    (dict[Literal["a"], int], {"b": 1}, "value"),
    (dict[int | None, int], {"x": 1}, "value"),
    (dict[int, Person], {"1": {}}, "value['1'].name"),
    (list[Person], [{"name": "a", "born": "x"}], "value[0].born"),
    (Page[Line], {"items": [{"sku": 5}]}, "value.items[0].sku"),
    (Picky, {"number": 0}, "value"),
    (Picky, {"number": -1}, "value"),
    (Box[Size], {"content": "xl"}, "value.content"),
    (Shelf[Size, int], {"content": ["s"], "index": {"1": "xl"}}, "value.index['1']"),
    (Node, {"value": 1, "children": {"a": [{}]}}, "value.children['a'][0]"),
    (Sizes, ["xl"], "value[0]"),
    (Json, {"a": [1.5]}, "value"),
    (Pet, {"kind": "fish"}, "value"),
    (deque[int], {"a": 1}, "value"),
    (Counter[str], {"a": "b"}, "value['a']"),
]


@pytest.mark.parametrize(("annotation", "given", "path"), MISFITS)
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


STORED: list[tuple[Any, Any]] = [
    (Iterable[Line], (Line("a"),)),
    (Sequence[Line], (Line("a"),)),
    (Iterable[Line], {Line("a"), Line("b")}),
    (deque[Line], deque([Line("a")], maxlen=3)),
    (Iterable[Line], deque([Line("a")], maxlen=3)),
    (Iterable[int], range(3)),
    (Sequence[Size], range(0)),
    (Mapping[str, Line], OrderedDict(a=Line("a"))),
    (dict[str, list[Line]], defaultdict(list, {"a": [Line("a")]})),
    (Counter[Size], Counter({Size.S: 2})),
    (int | Line, Line("a")),
    (Line | Any, 5),
    (Json, {"a": [1]}),
    (Box[int], Box("not an int")),
    (tuple[Line, ...], (Line("a"), Line("b"))),
]


@pytest.mark.parametrize(("annotation", "given"), STORED)
def test_stored_values_keep_their_own_types(annotation: Any, given: Any) -> None:
    back = decode(encode(given), annotation)

    assert back == given
    assert type(back) is type(given)
    assert getattr(back, "maxlen", None) == getattr(given, "maxlen", None)
    assert getattr(back, "default_factory", None) == getattr(given, "default_factory", None)


def test_a_union_takes_the_class_for_a_plain_dict_though_another_member_takes_anything() -> None:
    assert decode(encode({"sku": "a"}), int | Line) == Line("a")


def test_the_complaints_of_all_members_of_a_union_are_told() -> None:
    with pytest.raises(SerializationError, match=r"radius.*side"):
        decode(encode_json({"kind": "line"}), Circle | Square)


@dataclass
class Add:
    left: Sum
    right: Sum
    kind: Literal["add"] = "add"


@dataclass
class Subtract:
    left: Sum
    right: Sum
    kind: Literal["subtract"] = "subtract"


@dataclass
class First:
    next: Untagged


@dataclass
class Second:
    next: Untagged


Sum = Add | Subtract | int
Untagged = First | Second | int


def test_members_that_a_literal_tells_apart_cost_one_attempt_each() -> None:
    given: Any = 1
    for _ in range(40):
        given = {"left": given, "right": 2, "kind": "subtract"}
    back = decode(encode_json(given), Sum)

    assert (type(back), back.right) == (Subtract, 2)


def test_data_that_keeps_unions_busy_is_refused() -> None:
    given: Any = "nothing that fits"
    for _ in range(60):
        given = {"next": given}

    with pytest.raises(SerializationError, match="100000 attempts") as caught:
        decode(encode_json(given), Untagged)
    assert len(str(caught.value)) < 2000
    assert decode(encode_json({"next": 1}), Untagged) == First(1)  # each value has its own


def test_json_as_deep_as_it_likes_is_no_crash() -> None:
    for depth in (200, 900):
        deep = "[" * depth + "]" * depth
        reason = ""
        try:
            decode(b"j" + deep.encode(), Json)
        except SerializationError as error:
            reason = error.reason
        assert reason == "" or "deeply" in reason or "damaged" in reason


def test_calls_from_json_are_typed_and_misfits_named() -> None:
    def place(lines: list[Line], /, *rest: Size, when: date, **prices: Decimal) -> None: ...

    signature = Signature(place)
    call = {
        "args": [[{"sku": "a"}], "s", "l"],
        "kwargs": {"when": "2026-01-02", "a": "1.5", "b": 2},
    }
    args, kwargs = signature.decode_call(encode_json(call))

    assert args == [[Line("a")], Size.S, Size.L]
    assert kwargs == {"when": date(2026, 1, 2), "a": Decimal("1.5"), "b": Decimal(2)}
    misfits: list[tuple[list[Any], dict[str, Any], str]] = [
        ([[{"sku": 1}]], {"when": "2026-01-02"}, "args[0][0].sku"),
        ([[], "xl"], {"when": "2026-01-02"}, "args[1]"),
        ([[]], {"when": "soon"}, "kwargs['when']"),
        ([[]], {"when": "2026-01-02", "a": "x"}, "kwargs['a']"),
        ([[]], {}, "args"),
    ]
    for args, kwargs, path in misfits:
        with pytest.raises(SerializationError) as caught:
            signature.decode_call(encode_json({"args": args, "kwargs": kwargs}))
        assert caught.value.path == path
