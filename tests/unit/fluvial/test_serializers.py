"""Registered types: a class's own way into plain data, a lasting name, and clear refusals."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from fluvial import classes, packing, register_serializable, serializable, serializers
from fluvial.codec import decode, encode, encode_json
from fluvial.errors import InvalidRequestError, RemoteError, SerializationError


@pytest.fixture(autouse=True)
def clean_registrations() -> Iterator[None]:
    """What a test registers does not outlive it."""
    tables: list[dict[Any, Any]] = [
        vars(classes)["_registered"],
        vars(classes)["_ids"],
        vars(serializers)["_serializers"],
        vars(packing)["_packers"],
    ]
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


class Money:
    def __init__(self, amount: int, currency: str) -> None:
        self.amount = amount
        self.currency = currency

    def _workflow_serialize(self) -> list[object]:
        return [self.amount, self.currency]

    @classmethod
    def _workflow_deserialize(cls, data: list[Any]) -> Money:
        return cls(*data)


class Matrix:
    """A class of somebody else."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def to_list(self) -> list[Any]:
        return list(self.rows)


@dataclass
class Parcel:
    weight: int


class Shape(enum.Enum):
    ROUND = 1


class Person(BaseModel):
    name: str


class Lost(Exception):  # noqa: N818 - as users name theirs
    def __init__(self, parcel: int) -> None:
        super().__init__(f"parcel {parcel}")
        self.parcel = parcel


def test_a_decorated_class_comes_back_by_its_own_methods() -> None:
    assert serializable(Money) is Money
    back = decode(encode({"price": [Money(5, "EUR")]}))["price"][0]

    assert type(back) is Money
    assert (back.amount, back.currency) == (5, "EUR")


def test_a_foreign_class_is_registered_with_functions() -> None:
    register_serializable(Matrix, Matrix.to_list, Matrix)
    back = decode(encode(Matrix((1, Matrix((2,))))))

    assert type(back) is Matrix
    assert back.rows[1].rows == [2]


def test_functions_come_before_methods_and_before_what_a_class_is() -> None:
    register_serializable(
        Money, serialize=lambda money: money.amount, deserialize=lambda n: Money(n, "X")
    )
    register_serializable(Parcel, lambda parcel: parcel.weight, lambda weight: Parcel(weight + 1))

    assert decode(encode(Money(5, "EUR"))).currency == "X"
    assert decode(encode(Parcel(1))) == Parcel(2)


def test_a_registration_after_a_refusal_counts() -> None:
    with pytest.raises(SerializationError, match="register its class"):
        encode(Matrix([]))
    register_serializable(Matrix, Matrix.to_list, Matrix)

    assert decode(encode(Matrix([1]))).rows == [1]


def test_a_lasting_id_survives_that_a_class_moves() -> None:
    for cls in (Parcel, Shape, Person):
        register_serializable(cls, class_id=f"shop.{cls.__name__}")
    data = encode([Parcel(1), Shape.ROUND, Person(name="ada")])
    assert __name__.encode() not in data

    @dataclass
    class Packet:
        weight: int

    classes.register_name("shop.Parcel", Packet)  # as another version of the code would
    back = decode(data)

    assert back == [Packet(1), Shape.ROUND, Person(name="ada")]


def test_an_exception_needs_an_id_only() -> None:
    register_serializable(Lost, class_id="shop.Lost")
    data = encode(Lost(7))

    assert __name__.encode() not in data
    assert decode(data).parcel == 7


def test_without_an_id_a_class_that_describes_itself_is_stored_as_ever() -> None:
    before = encode(Parcel(1))
    serializable(Parcel)

    assert encode(Parcel(1)) == before


def test_an_id_that_nobody_registered_is_an_error_that_says_what_to_do() -> None:
    register_serializable(Matrix, Matrix.to_list, Matrix, class_id="maths.Matrix")
    data = encode([Matrix([])])
    vars(classes)["_registered"].clear()

    with pytest.raises(SerializationError) as caught:
        decode(data, where="result")

    assert caught.value.path == "result"
    assert "'maths.Matrix', which is not registered here" in caught.value.reason
    assert "@serializable(class_id='maths.Matrix')" in caught.value.reason


def test_an_exception_with_an_unknown_id_gives_a_stand_in() -> None:
    register_serializable(Lost, class_id="shop.Lost")
    data = encode(Lost(7))
    vars(classes)["_registered"].clear()

    assert type(decode(data)) is RemoteError


def test_the_path_leads_into_the_plain_data() -> None:
    register_serializable(Matrix, Matrix.to_list, Matrix)

    with pytest.raises(SerializationError) as caught:
        encode([Matrix([1, object()])], "args[0]")

    assert caught.value.path == "args[0][0] (as plain data)[1]"


def test_a_serializer_that_raises_is_a_refusal() -> None:
    register_serializable(Matrix, lambda _: 1 / 0, lambda _: Matrix(1 / 0))
    with pytest.raises(SerializationError, match="serializer failed \\(ZeroDivisionError"):
        encode([Matrix([])])

    register_serializable(Matrix, Matrix.to_list, lambda _: Matrix(1 / 0))
    with pytest.raises(SerializationError, match=r"deserializer of .*Matrix' failed"):
        decode(encode(Matrix([])))


def test_a_serializer_that_returns_its_own_kind_ends_somewhere() -> None:
    register_serializable(Matrix, lambda matrix: matrix, Matrix)

    with pytest.raises(SerializationError, match="contains itself"):
        encode(Matrix([]))


def test_relatives_of_registered_classes_are_refused_with_a_way_out() -> None:
    register_serializable(Matrix, Matrix.to_list, Matrix)

    @dataclass
    class Wide(Matrix):
        rows: Any

    for value in (Wide([]), Money(1, "EUR")):
        with pytest.raises(SerializationError, match="on top of its decorators"):
            encode(value)


@pytest.mark.parametrize("cls", [int, str, list, dict, tuple, bytes, type(None)])
def test_what_is_stored_as_it_is_cannot_be_registered(cls: Any) -> None:
    with pytest.raises(InvalidRequestError, match="stored as they are"):
        register_serializable(cls, repr, cls)


def test_missing_methods_and_taken_ids_are_refused() -> None:
    class Half:
        def _workflow_serialize(self) -> int:
            return 1

    with pytest.raises(InvalidRequestError, match="_workflow_deserialize"):
        serializable(Half)
    with pytest.raises(InvalidRequestError, match="_workflow_serialize"):
        register_serializable(Matrix, class_id="m")
    with pytest.raises(InvalidRequestError, match="bytes"):
        register_serializable(Matrix, repr, Matrix, class_id="m" * 300)
    register_serializable(Matrix, Matrix.to_list, Matrix, class_id="m")
    with pytest.raises(InvalidRequestError, match="'m' is that of"):
        register_serializable(Parcel, class_id="m")
    with pytest.raises(InvalidRequestError, match="is that of"):
        register_serializable(Parcel, class_id=f"{__name__}:Money")


def test_a_module_imported_anew_registers_its_classes_anew(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "anew.py").write_text(
        "from fluvial import serializable\n"
        "@serializable(class_id='anew.Thing')\n"
        "class Thing:\n"
        "    def _workflow_serialize(self): return 1\n"
        "    @classmethod\n"
        "    def _workflow_deserialize(cls, data): return cls()\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    first = importlib.import_module("anew")
    monkeypatch.delitem(sys.modules, "anew")
    second = importlib.import_module("anew")
    monkeypatch.delitem(sys.modules, "anew")

    assert type(decode(encode(first.Thing()))) is second.Thing


def test_json_becomes_a_registered_type_where_one_is_annotated() -> None:
    serializable(Money)
    back = decode(encode_json([[5, "EUR"]]), list[Money])

    assert back[0].currency == "EUR"
    with pytest.raises(SerializationError) as caught:
        decode(encode_json([[5]]), list[Money])
    assert caught.value.path == "value[0]"
