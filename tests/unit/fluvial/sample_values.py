"""Values of every type that can be stored, and classes to make some of."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, Field, PrivateAttr, RootModel, SecretStr

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    MIXED = (1, 2)


class Action(enum.Enum):
    """An enum whose values cannot be stored."""

    SHOUT = enum.member(str.upper)


class Level(enum.IntEnum):
    LOW = 1


class Tag(enum.StrEnum):
    NEW = "new"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Mask(enum.IntFlag):
    A = 1
    B = 4


class Point(NamedTuple):
    x: int
    y: int = 0


# The old way on purpose.
Pair = namedtuple("Pair", "left right")  # pyright: ignore[reportUntypedNamedTuple] #


class Options(TypedDict, total=False):
    when: date


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    sku: str
    price: Decimal
    where: Point | None = None


@dataclasses.dataclass
class Cart:
    items: list[Item]
    opened: datetime
    count: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.count = len(self.items)


@dataclasses.dataclass
class GiftCart(Cart):
    note: str = ""


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@dataclasses.dataclass
class Indexed:
    """A dataclass with an attribute that is no field, and one that is only remembered."""

    words: list[str]

    def __post_init__(self) -> None:
        self.index = {word: n for n, word in enumerate(self.words)}

    @cached_property
    def longest(self) -> str:
        return max(self.words, key=len)


class Order(BaseModel):
    id: UUID
    cart: Cart
    tags: set[Tag] = set()
    _note: str = PrivateAttr(default="")

    def write(self, note: str) -> None:
        self._note = note

    def read(self) -> str:
        return self._note

    @cached_property
    def size(self) -> int:
        return len(self.cart.items)


class Open(BaseModel, extra="allow"):
    name: str


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: Page[T] | None = None


class Numbers(RootModel[list[int]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: frozenset[str] = frozenset()


class Home(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Linked(BaseModel):
    url: AnyUrl


class Guarded(BaseModel):
    secret: SecretStr


ITEM = Item("a", Decimal("1.10"), Point(1, 2))
CART = Cart([ITEM], datetime(2026, 1, 2, tzinfo=timezone.utc))  # noqa: UP017 - both spellings

SAMPLES: list[Any] = [
    *Colour,
    *Action,
    *Level,
    *Tag,
    Right.READ | Right.WRITE,
    Right(0),
    Mask.A | Mask.B,
    ITEM,
    CART,
    GiftCart([], datetime(2026, 1, 1), "for you"),  # noqa: DTZ001 - naive on purpose
    Box[int](3),
    Box([ITEM]),
    Indexed(["a", "bcd"]),
    Point(1, 2),
    Pair("l", ["r"]),
    Options(when=date(2026, 1, 1)),
    Order(id=UUID(int=1), cart=CART, tags={Tag.NEW}),
    Open.model_validate({"name": "n", "more": ITEM}),
    Page(items=[1, "a"]),
    Page[int](items=[1], next=Page[int](items=[2])),
    Page[Item](items=[ITEM]),
    Page[dict[str, Cat | None]](items=[{"a": Cat()}]),
    Page[Page[Literal["a"]]](items=[Page[Literal["a"]](items=["a"])]),
    Numbers([1, 2]),
    Home(pet=Dog(tricks=frozenset({"roll"}))),
    Linked(url=AnyUrl("https://example.org/x")),
    Path("/a/b"),
    Path("caf\udce9"),  # a file name that is no UTF-8
    PurePosixPath("c"),
    PureWindowsPath("C:/x"),
    ZoneInfo("Europe/Berlin"),
    timezone.utc,  # noqa: UP017 - as above
    timezone(timedelta(hours=5, minutes=30)),
    timezone(timedelta(hours=-3), "mine"),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    datetime(1, 1, 1, fold=1),  # noqa: DTZ001 - naive on purpose
    time(1, 2, tzinfo=timezone.utc),  # noqa: UP017 - as above
    time(1, 2, tzinfo=ZoneInfo("Asia/Tokyo"), fold=1),
    timedelta.min,
    Fraction(-1, 3),
    Decimal("-0"),
    Decimal("NaN"),
    Decimal("sNaN123"),
    Decimal("-Infinity"),
    -0.0,
    math.inf,
    math.nan,
    complex(math.nan, -0.0),
    2**64,
    -(2**63) - 1,
    10**3000,
    range(5),
    range(10**30, -5, -(10**20)),
    deque([1, (2,)]),
    deque([1, 2], maxlen=2),
    OrderedDict(b=1, a=[2]),
    defaultdict(list, {"a": [1]}),
    defaultdict(None, {"a": 1}),
    Counter("abca"),
    {1: "a", "1": "b", None: 0, (1, 2): {}, ITEM: 1, Colour.RED: 2, b"k": 3},
    [1, (2, [3, (4,)])],
    {("a", 1): {"nested": {frozenset({1, 2})}}},
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("2001:db8::/32"),
    ipaddress.ip_interface("10.0.0.1/8"),
    ipaddress.ip_interface("::1/128"),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones(), allow_imaginary=True),
    st.dates(),
    st.times(),
    st.times(timezones=st.timezones()),
    st.timedeltas(),
    st.timezones(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.ip_addresses(),
    st.sampled_from(SAMPLES),
)
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(),
        st.binary(),
        st.uuids(),
        st.dates(),
        st.fractions(),
        st.sampled_from([ITEM, Point(3, 4), *Colour, *Tag, Right.READ, range(3)]),
    ),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mappings = st.dictionaries(hashable, inner, max_size=4)
    return st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.lists(inner, max_size=4).map(deque),
        st.lists(inner, max_size=4).map(lambda items: deque(items, len(items))),
        mappings,
        mappings.map(OrderedDict),
        mappings.map(lambda items: defaultdict(dict, items)),
        st.dictionaries(hashable, st.integers(), max_size=4).map(Counter),
        inner.map(Box),
        st.builds(Pair, inner, inner),
        inner.map(lambda each: Page[Any](items=[each])),
        inner.map(lambda each: Open.model_validate({"name": "n", "more": each})),
    )


values = st.recursive(scalars, _containers, max_leaves=12)


def typed(value: Any) -> Any:
    """A value with the types of all its parts, as equality forgets them (1 == 1.0 == True)."""
    kind = cast("type[Any]", type(value))
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, complex):
        return kind, typed(value.real), typed(value.imag)
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    if isinstance(value, (datetime, time)):
        zone = value.tzinfo
        return kind, value.isoformat(), value.fold, str(zone), type(zone)
    if isinstance(value, ZoneInfo):
        return kind, value.key
    if isinstance(value, deque):
        queue = cast("deque[Any]", value)
        return kind, queue.maxlen, [typed(item) for item in queue]
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        factory = getattr(items, "default_factory", None)
        return kind, factory, [(typed(key), typed(item)) for key, item in items.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(repr(typed(item)) for item in cast("set[Any]", value))
    if isinstance(value, (list, tuple)):
        return kind, [typed(item) for item in cast("list[Any]", value)]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return kind, [typed(getattr(value, name)) for name in names]
    if isinstance(value, BaseModel):
        state = cast("Any", value).__getstate__()
        return kind, state["__pydantic_fields_set__"], typed(state["__dict__"])
    return kind, value
