"""The codec: what goes in comes out, in its type, or is refused with its path."""

from __future__ import annotations

import re
import types
from collections import ChainMap, defaultdict
from datetime import date, datetime, timedelta, tzinfo
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from fluvial import codec
from fluvial.codec import decode, encode, encode_json, set_compression
from fluvial.errors import SerializationError
from tests.unit.fluvial.sample_values import (
    CART,
    ITEM,
    SAMPLES,
    Cart,
    Guarded,
    Indexed,
    Open,
    Order,
    Point,
    typed,
    values,
)


class Nowhere(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, dt: datetime | None, /) -> timedelta | None:
        return None

    def dst(self, dt: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, dt: datetime | None, /) -> str | None:
        return None


@given(values)
@settings(max_examples=300, deadline=None)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert typed(decode(encode(value))) == typed(value)


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: type(value).__qualname__)
def test_every_type_comes_back_as_itself(value: Any) -> None:
    assert typed(decode(encode(value))) == typed(value)


@pytest.mark.parametrize("value", [bytearray(b"x"), memoryview(b"x")])
def test_what_holds_bytes_comes_back_as_bytes(value: Any) -> None:
    assert typed(decode(encode(value))) == (bytes, b"x")
    assert typed(decode(encode(value), bytearray)) == (bytearray, bytearray(b"x"))


def test_private_state_of_models_survives() -> None:
    order = Order(id=UUID(int=1), cart=CART)
    order.write("fragile")
    back = decode(encode(order))

    assert back.read() == "fragile"
    assert back.model_fields_set == {"id", "cart"}


def test_equal_sets_have_equal_encodings() -> None:
    one = {f"item {n}" for n in range(50)}
    other = {f"item {n}" for n in reversed(range(50))}

    assert encode(one) == encode(other)


def spoilt(value: Any, name: str, part: object) -> Any:
    object.__setattr__(value, name, part)
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([object()], "args[0][0]"),
        ({"a": {"b": object()}}, "args[0]['a']['b']"),
        ((1, {2: object()}), "args[0][1][2]"),
        ({object: 1}, "args[0] (key <class 'object'>)"),
        (spoilt(Cart([], datetime(2026, 1, 1)), "items", [object()]), "args[0].items[0]"),  # noqa: DTZ001
        (spoilt(Indexed(["a"]), "index", object()), "args[0].index"),
        (Point(1, object()), "args[0].y"),  # type: ignore[arg-type] # on purpose
        (Open.model_validate({"name": "n", "more": [object()]}), "args[0].more[0]"),
        (Guarded(secret=SecretStr("s")), "args[0].secret"),
        ({"f": lambda: None}, "args[0]['f']"),
        (defaultdict(object), "args[0]"),
        ("\ud800", "args[0]"),
        ({"x": ["\ud800"]}, "args[0]['x'][0]"),
        (open, "args[0]"),
        ([1 << 10_000_000], "args[0][0]"),
        ([datetime(2026, 1, 1, tzinfo=Nowhere())], "args[0][0]"),
    ],
    ids=range(16),
)
def test_what_cannot_be_stored_is_named(value: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(value, "args[0]")

    assert caught.value.path == path


REFUSED: list[tuple[Any, str]] = [
    (object(), "register its class"),
    (re.compile("a"), "pass its text"),
    ((n for n in [1]), "a list of what it yields"),
    ({"a": 1}.keys(), "a list of the keys"),
    (types.MappingProxyType({}), r"pass dict\(value\)"),
    (ChainMap({}), r"pass dict\(value\)"),
    (int, "look the class up"),
    (test_what_cannot_be_stored_is_named, "look the function up"),
    (defaultdict(partial(int)), r"pass dict\(value\)"),
]


@pytest.mark.parametrize(("value", "advice"), REFUSED, ids=range(9))
def test_a_refusal_says_what_to_do(value: Any, advice: str) -> None:
    with pytest.raises(SerializationError, match=advice):
        encode(value)


def test_an_error_in_a_property_is_a_refusal() -> None:
    cart = Cart([], datetime(2026, 1, 1))  # noqa: DTZ001 - naive on purpose
    cart.__class__ = type("Cart", (Cart,), {"count": property(lambda self: 1 / 0)})

    with pytest.raises(SerializationError, match="ZeroDivisionError"):
        encode(cart)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})

    with pytest.raises(SerializationError, match="contains itself"):
        encode(loop)


def test_a_value_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 1000)

    with pytest.raises(SerializationError, match="above the limit of 1000"):
        encode("x" * 2000)


def test_data_never_imports_a_module() -> None:
    name = f"{ITEM.__module__}:Item".encode()
    other = b"antigravity:Item".ljust(len(name), b"m")
    assert name in encode(ITEM)

    back = decode(encode(ITEM).replace(name, other))

    assert isinstance(back, dict)
    assert back["sku"] == "a"


def test_large_values_are_compressed_where_it_saves() -> None:
    small, dull, dense = encode("x" * 100), encode("x" * 100_000), encode(bytes(range(256)) * 3)

    assert small[:1] == b"m"
    assert dull[:1] == b"M"
    assert len(dull) < 1000
    assert dense[:1] == b"m"
    assert decode(dull) == "x" * 100_000


def test_a_process_can_be_told_not_to_compress() -> None:
    value = "again and again " * 1000
    compressed = encode(value)
    set_compression(False)
    try:
        plain = encode(value)
        assert decode(compressed) == decode(plain) == value
    finally:
        set_compression(True)

    assert len(compressed) < len(value) < len(plain)
    assert encode(value) == compressed


def test_decompression_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(b"\0" * 1_000_000)
    monkeypatch.setattr(codec, "MAX_VALUE_BYTES", 100_000)

    with pytest.raises(SerializationError, match="damaged"):
        decode(bomb)


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
