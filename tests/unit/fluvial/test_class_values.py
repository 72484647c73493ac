"""Values of classes: exact state without constructors, and classes that changed meanwhile."""

from __future__ import annotations

import dataclasses
import enum
import sys
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, create_model

from fluvial.codec import decode, encode
from fluvial.errors import SerializationError
from tests.unit.fluvial.sample_values import (
    CART,
    Box,
    Cart,
    Indexed,
    Item,
    Options,
    Order,
    Page,
    Point,
)

T = TypeVar("T")


@dataclass
class Counted:
    """Its constructor must not run again."""

    number: int
    made: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        self.made += 1


@dataclass
class Lazy:
    name: str
    later: int = field(init=False)


class Slotted:
    __slots__ = ("note",)


@dataclass
class Mixed(Slotted):
    name: str


@dataclass
class Keyed(dict[str, int]):
    name: str


class Alone:
    """A class with a `__new__` of its own."""

    def __new__(cls, *_: object, **__: object) -> Any:
        raise AssertionError("nobody may make one")


@dataclass
class Settings(Alone):
    name: str


@dataclass
class Version:
    number: int


class Coordinates(NamedTuple):
    x: int


class Size(enum.Enum):
    S = "s"
    XL = "xl"


class Person(BaseModel):
    name: str


def replaced(monkeypatch: pytest.MonkeyPatch, cls: Any) -> None:
    """Let `cls` be what this module has under its name: another version of the class."""
    cls.__qualname__ = cls.__name__
    monkeypatch.setattr(sys.modules[__name__], cls.__name__, cls)


def test_no_constructor_runs_again() -> None:
    assert decode(encode(Counted(1))).made == 1


def test_a_field_that_was_never_set_stays_so() -> None:
    back = decode(encode(Lazy("a")))

    assert back.name == "a"
    assert not hasattr(back, "later")


def test_attributes_that_are_no_fields_survive_and_what_is_remembered_does_not() -> None:
    value = Indexed(["a", "bcd"])
    before = encode(value)
    assert value.longest == "bcd"
    back = decode(encode(value))

    assert encode(value) == before  # "same input" must not depend on what was looked at
    assert vars(back) == {"words": ["a", "bcd"], "index": {"a": 0, "bcd": 1}}


def test_slots_of_a_base_survive() -> None:
    value = Mixed("a")
    object.__setattr__(value, "note", "b")
    back = decode(encode(value))

    assert (back.name, back.note) == ("a", "b")


def test_a_dataclass_that_is_a_dict_too_is_refused() -> None:
    with pytest.raises(SerializationError, match=r"Keyed cannot be stored.*written in C"):
        encode(Keyed("a"))


def test_a_new_of_its_own_is_not_asked() -> None:
    value = object.__new__(Settings)
    value.name = "a"

    assert decode(encode(value)) == value


def test_a_named_tuple_with_attributes_is_refused() -> None:
    class Loose(Point):
        pass

    loose = Loose(1)
    loose.extra = 1  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]

    with pytest.raises(SerializationError, match="attributes of its own"):
        encode(loose)


def test_private_state_and_set_fields_of_models_survive() -> None:
    order = Order(id=UUID(int=1), cart=CART)
    order.write("fragile")
    before = encode(order)
    assert order.size == 1
    back = decode(encode(order))

    assert encode(order) == before
    assert back.read() == "fragile"
    assert back.model_fields_set == {"id", "cart"}


def test_generic_models_come_back_with_their_parameters() -> None:
    back = decode(encode(Page[Item](items=[])))

    assert type(back) is Page[Item]
    assert type(decode(encode(Page(items=[1])))) is Page


def test_a_generic_model_of_something_nameless_is_refused_with_a_way_out() -> None:
    with pytest.raises(SerializationError, match="class ItemPage"):
        encode(Page[Annotated[int, Field(gt=0)]](items=[1]))


def test_a_typed_dict_is_a_dict() -> None:
    assert decode(encode(Options(when=date(2026, 1, 1)))) == {"when": date(2026, 1, 1)}


@pytest.mark.parametrize("maker", [lambda: Box[int](1), lambda: Box(1)])
def test_generic_dataclasses_come_back(maker: Any) -> None:
    assert decode(encode(maker())) == Box(1)


def test_a_class_that_is_nowhere_comes_back_as_plain_data() -> None:
    @dataclass
    class Local:
        number: int

    model = create_model("Nowhere", a=(int, 1))

    assert decode(encode([Local(3), model()])) == [{"number": 3}, {"a": 1}]
    assert decode(encode(Local(3)), Local) == Local(3)


def test_a_new_field_gets_its_default_and_a_removed_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(Version(1))

    @dataclass
    class NewVersion:
        label: str = "none"
        tags: list[str] = field(default_factory=list[str])

    NewVersion.__name__ = "Version"
    replaced(monkeypatch, NewVersion)
    back = decode(data)

    assert back == NewVersion("none", [])
    assert not hasattr(back, "number")


def test_a_new_field_without_a_default_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Version(1))
    changed: Any = dataclasses.make_dataclass("Version", ["number", "label"])
    changed.__module__ = __name__
    replaced(monkeypatch, changed)

    with pytest.raises(
        SerializationError, match=r"Version has no 'label'.*give the field a default"
    ):
        decode(data)


def test_models_grow_and_shrink_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Person(name="ada"))

    class New(BaseModel):
        born: int = 1815
        likes: list[str] = Field(default_factory=list)

    New.__name__ = "Person"
    replaced(monkeypatch, New)
    back = decode(data)

    assert back.model_dump() == {"born": 1815, "likes": []}
    assert "name" not in vars(back)


def test_a_model_with_a_new_required_field_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Person(name="ada"))

    class New(BaseModel):
        name: str
        born: int

    New.__name__ = "Person"
    replaced(monkeypatch, New)

    with pytest.raises(SerializationError, match="has no 'born'"):
        decode(data)


def test_a_member_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode([Size.XL])
    replaced(monkeypatch, enum.Enum("Size", {"S": "s"}, module=__name__))

    with pytest.raises(SerializationError, match=r"'xl' is not a member of .*Size here"):
        decode(data)


def test_named_tuples_grow_by_defaults_only(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Coordinates(1))

    class New(NamedTuple):
        x: int
        y: int = 5

    New.__name__ = "Coordinates"
    replaced(monkeypatch, New)
    assert decode(data) == (1, 5)

    class Strict(NamedTuple):
        x: int
        y: int

    Strict.__name__ = "Coordinates"
    replaced(monkeypatch, Strict)
    with pytest.raises(SerializationError, match="do not make"):
        decode(data)


class Holder(Generic[T]):
    class Inner(BaseModel):
        number: int


def test_nested_classes_are_found() -> None:
    inner = Holder.Inner(number=1)

    assert decode(encode(inner)) == inner
    assert type(decode(encode(inner))) is Holder.Inner


def test_a_dataclass_keeps_what_it_was_even_if_invalid() -> None:
    cart = Cart([], CART.opened)
    cart.count = cast("int", "many")

    assert decode(encode(cart)).count == "many"
