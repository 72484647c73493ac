"""The codec: what goes in comes out, in its type, or is refused with its path."""

from __future__ import annotations

import dataclasses
import enum
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, PrivateAttr, SecretStr

from fluvial import codec
from fluvial.codec import decode, encode, encode_json
from fluvial.errors import FatalError, RemoteError, RetryableError, SerializationError


class Colour(enum.Enum):
    RED = "red"
    MIXED = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Tag(enum.StrEnum):
    NEW = "new"


class Point(NamedTuple):
    x: int
    y: int


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


class Order(BaseModel):
    id: UUID
    cart: Cart
    tags: set[Tag] = set()
    _note: str = PrivateAttr(default="")

    def write(self, note: str) -> None:
        self._note = note

    def read(self) -> str:
        return self._note


class Linked(BaseModel):
    url: AnyUrl


class Guarded(BaseModel):
    secret: SecretStr


ITEM = Item("a", Decimal("1.10"), Point(1, 2))
CART = Cart([ITEM], datetime(2026, 1, 2, tzinfo=UTC))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.sampled_from([*Colour, *Level, *Tag, ITEM, Path("/a/b"), PurePosixPath("c")]),
)
hashable = st.one_of(st.integers(), st.text(), st.uuids(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    scalars,
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.tuples(children, children),
        st.dictionaries(hashable, children, max_size=4),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
    ),
    max_leaves=10,
)


def typed(value: Any) -> Any:
    """A value with the types of all its parts, as equality forgets them (1 == 1.0 == True)."""
    kind = cast("type[Any]", type(value))
    if kind is list or kind is tuple:
        return kind, [typed(item) for item in value]
    if kind is dict:
        return kind, {key: typed(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return datetime, value, value.utcoffset(), value.fold, str(value.tzinfo)
    return kind, value


@given(values)
@settings(max_examples=300, deadline=None)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert typed(decode(encode(value))) == typed(value)


@pytest.mark.parametrize(
    "value",
    [
        CART,
        Order(id=UUID(int=1), cart=CART, tags={Tag.NEW}),
        Linked(url=AnyUrl("https://example.org/x")),
        Point(1, 2),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        time(1, 2, tzinfo=UTC),
        [1, (2, [3, (4,)])],
        {("a", 1): {"nested": {frozenset({1, 2})}}},
        float("inf"),
        2**64,
        -(2**63) - 1,
    ],
)
def test_particular_values(value: Any) -> None:
    back = decode(encode(value))

    assert back == value
    assert type(back) is type(value)


def test_private_state_of_models_survives() -> None:
    order = Order(id=UUID(int=1), cart=CART)
    order.write("fragile")
    back = decode(encode(order))

    assert back.read() == "fragile"
    assert back.model_fields_set == {"id", "cart"}


def test_not_a_number_survives() -> None:
    back = decode(encode(float("nan")))

    assert back != back


def test_equal_sets_have_equal_encodings() -> None:
    one = {f"item {n}" for n in range(50)}
    other = {f"item {n}" for n in reversed(range(50))}

    assert encode(one) == encode(other)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([object()], "args[0][0]"),
        ({"a": {"b": object()}}, "args[0]['a']['b']"),
        ((1, {2: object()}), "args[0][1][2]"),
        (Cart([object()], datetime(2026, 1, 1)), "args[0].items[0]"),  # type: ignore[list-item] # noqa: DTZ001
        ({"f": lambda: None}, "args[0]['f']"),
        (OrderedDict(a=1), "args[0]"),
        ("\ud800", "args[0]"),
        ({"x": ["\ud800"]}, "args[0]['x'][0]"),
        (Guarded(secret=SecretStr("s")), "args[0].secret"),
        (open, "args[0]"),
        ([1 << 10_000_000], "args[0][0]"),
    ],
    ids=range(11),
)
def test_what_cannot_be_stored_is_named(value: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(value, "args[0]")

    assert caught.value.path == path


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})

    with pytest.raises(SerializationError, match="contains itself"):
        encode(loop)


def test_a_value_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 1000)

    with pytest.raises(SerializationError, match="above the limit of 1000"):
        encode("x" * 2000)


def test_errors_keep_class_arguments_cause_and_traceback() -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RetryableError("outer", retry_after=9) from error

    with pytest.raises(RetryableError) as caught:
        fail()
    back = decode(encode(caught.value))

    assert type(back) is RetryableError
    assert back.retry_after_seconds == 9
    assert str(back) == "outer"
    assert repr(back.__cause__) == "KeyError('inner')"
    assert "in fail" in back.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        FatalError("no"),
        SerializationError("a.b", "bad"),
        ExceptionGroup("many", [ValueError(1), KeyError(2)]),
        OSError(2, "gone"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
)
def test_known_errors_are_rebuilt(error: Exception) -> None:
    back = decode(encode(error))

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_other_errors_become_remote_errors() -> None:
    class OrderError(Exception):
        def __init__(self, client: object) -> None:
            super().__init__("no order", client)

    back = decode(encode(OrderError(object())))

    assert type(back) is RemoteError
    assert "OrderError" in back.type_name
    assert "no order" in str(back)


def test_a_chain_of_causes_that_turns_back_is_cut() -> None:
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__cause__ = two, one

    back = decode(encode(one))

    assert back.__cause__.__cause__ is None


def test_data_never_imports_a_module() -> None:
    forged = encode(ITEM).replace(__name__.encode(), b"antigravity"[: len(__name__)])
    name = f"{__name__}:Item".encode()
    assert name in encode(ITEM)
    other = b"antigravity:Item".ljust(len(name), b"m")

    back = decode(encode(ITEM).replace(name, other))

    assert isinstance(back, dict)
    assert back["sku"] == "a"
    assert forged


def test_large_values_are_compressed_where_it_saves() -> None:
    small, dull, dense = encode("x" * 100), encode("x" * 100_000), encode(bytes(range(256)) * 3)

    assert small[:1] == b"m"
    assert dull[:1] == b"M"
    assert len(dull) < 1000
    assert dense[:1] == b"m"
    assert decode(dull) == "x" * 100_000


def test_decompression_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(b"\0" * 1_000_000)
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 100_000)

    with pytest.raises(SerializationError, match="damaged"):
        decode(bomb)


@given(st.binary(max_size=200), st.sampled_from([b"m", b"j", b"M", b"J", b"", b"x"]))
@settings(max_examples=400, deadline=None)
def test_damaged_data_is_one_kind_of_error(data: bytes, form: bytes) -> None:
    try:
        decode(form + data)
    except SerializationError:
        return


@given(values, st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_byte_never_escapes(value: Any, data: st.DataObject) -> None:
    plain = bytearray(encode(value))
    plain[data.draw(st.integers(0, len(plain) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(plain))
    except SerializationError:
        return


def test_deeply_nested_data_is_refused() -> None:
    tuples = b"\x90"
    for _ in range(3000):
        tuples = b"\xc9" + len(tuples).to_bytes(4, "big") + b"\x0a" + tuples

    with pytest.raises(SerializationError):
        decode(b"m" + tuples)
    with pytest.raises(SerializationError):
        decode(b"j" + b"[" * 100_000)


def test_json_has_its_own_form() -> None:
    assert encode_json({"a": [1, None]}) == b'j{"a": [1, null]}'
    assert decode(encode_json("x" * 5000)) == "x" * 5000
    with pytest.raises(SerializationError):
        encode_json(object())
    with pytest.raises(SerializationError):
        encode_json(float("nan"))


def test_dates_are_dates() -> None:
    assert type(decode(encode(date(2026, 1, 1)))) is date
