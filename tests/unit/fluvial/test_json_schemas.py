"""Schemas of payloads: they refuse at the door what the code would refuse, and nothing else."""

from __future__ import annotations

import dataclasses
import string
from collections import Counter, deque
from collections.abc import Mapping, Sequence, Sized
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from fluvial.codec import decode, encode_json
from fluvial.errors import SerializationError
from fluvial.json_schemas import MAX_SCHEMA_BYTES, payload_schema
from fluvial.schema_checks import MAX_WORK, mismatch

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mode(Flag):
    READ = 1
    WRITE = 2


class Guessing(Enum):
    YES = "yes"

    @classmethod
    def _missing_(cls, value: object) -> Guessing | None:
        return cls.YES if value == 1 else None


@dataclasses.dataclass
class Line:
    sku: str
    count: int = 1


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Line]
    price: Decimal
    colour: Colour | None = None
    nothing: None = None


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Point(NamedTuple):
    x: int
    y: int = 0


class Patch(TypedDict):
    name: str
    value: NotRequired[float]


class Item(BaseModel):
    sku: str = Field(min_length=1, max_length=5)
    count: int = 1


class Cart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[Item]
    note: str | None = None
    at: datetime | None = None
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    size: Size = Size.SMALL
    labels: dict[str, int] = Field(default_factory=dict)


class Lenient(BaseModel):
    number: int

    @model_validator(mode="before")
    @classmethod
    def unwrap(cls, data: Any) -> Any:
        return {"number": data} if isinstance(data, int) else data


def _length(value: object) -> object:
    return len(value) if isinstance(value, Sized) else value


class Trimmed(BaseModel):
    number: Annotated[int, BeforeValidator(_length)]


class Renamed(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(alias="n")


class OneOfTwo(BaseModel):
    number: int = Field(validation_alias=AliasChoices("n", "number"))


class Checked(BaseModel):
    number: int

    @field_validator("number", mode="before")
    @classmethod
    def parse(cls, value: Any) -> Any:
        return 0 if value is None else value


class Tree(BaseModel):
    value: int
    children: list[Tree] = Field(default_factory=lambda: list[Tree]())


ANNOTATIONS: list[Any] = [
    *(int, float, str, bool, bytes, None, Any, object, complex, Decimal, Fraction, timedelta),
    *(datetime, date, UUID, Path, range, list, dict, set, tuple, deque, Counter),
    *(list[int], set[str], tuple[int, str], tuple[int, ...], dict[str, int], Mapping[str, float]),
    *(Sequence[Colour], int | None, int | str, list[int] | dict[str, int], Literal[1, "a", None]),
    *(Colour, Size, Mode, Guessing, Line, Order, Box[int], Box[list[str]], Point, Patch),
    *(Item, Cart, Lenient, Trimmed, Renamed, OneOfTwo, Checked, Tree, list[Item]),
    Annotated[int, "a note"],
]
EXAMPLES: list[Any] = [
    *(None, True, 1, 1.0, 1.5, -3, "1", "", "red", "RED", "a", "2024-01-01", [], {}, [1], [1, "x"]),
    *(["red"], {"a": 1}, {"a": "1"}, {"x": 1}, {"x": 1, "y": 2}, {"name": "n"}, {"name": 1}),
    *({"sku": "a"}, {"sku": "a", "count": "2"}, {"sku": 1}, {"sku": "a", "more": 1}),
    *({"content": 1}, {"content": ["a"]}, {"id": 1, "lines": [], "price": 1}),
    {"id": 1, "lines": [{"sku": "a"}], "price": "1.5", "colour": "red"},
    {"items": [{"sku": "a"}]},
    {"items": [{"sku": "a", "count": True}], "at": 5, "size": "2", "kind": "b"},
    {"items": [{}]},
    {"items": [], "colour": "green"},
    {"items": [], "labels": {"a": "1"}},
    *({"number": 1}, {"number": [1]}, {"number": None}, {"n": 1}, {"n": "1"}),
    {"value": 1, "children": [{"value": 2, "children": []}]},
    {"value": 1, "children": [{"value": "x"}]},
]
_keys = st.sampled_from(["sku", "count", "items", "id", "lines", "number", "n", "a", "value"])
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(string.ascii_letters + string.digits, max_size=4)
)
_json = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3)
)


def _is_taken(annotation: Any, value: Any) -> bool:
    try:
        decode(encode_json(value), annotation)
    except SerializationError:
        return False
    return True


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_a_schema_refuses_nothing_that_the_annotation_takes(annotation: Any) -> None:
    schema = payload_schema(annotation)
    for value in EXAMPLES:
        wrong = mismatch(value, schema)
        assert wrong is None or not _is_taken(annotation, value), (value, wrong)


@given(st.sampled_from(ANNOTATIONS), _json)
def test_nor_does_it_refuse_random_values_that_are_taken(annotation: Any, value: Any) -> None:
    wrong = mismatch(value, payload_schema(annotation))
    assert wrong is None or not _is_taken(annotation, value)


MISMATCHES: list[tuple[Any, Any, str]] = [
    (int, "1", "payload: must be integer, got string"),
    (list[int], [1, "x"], "payload[1]: must be integer, got string"),
    (Line, {"count": 1}, "payload.sku: is missing"),
    (Line, {"sku": "a", "more": 1}, "payload.more: is unknown; known: sku, count"),
    (
        Order,
        {"id": 1, "lines": [{"sku": 1}], "price": 1},
        "payload.lines[0].sku: must be string",
    ),
    (Colour, "green", "payload: must be one of 'red', 'blue', 'RED', 'BLUE'"),
    (int | None, "x", "payload: must be integer, got string; or must be null, got string"),
    (tuple[int, str], [1], "payload: has 1 items, and needs 2"),
    (dict[str, int], {"a": "b"}, "payload.a: must be integer, got string"),
    (Patch, {"value": 1}, "payload.name: is missing"),
    (Cart, {"items": [{}]}, "payload.items[0].sku: is missing"),
    (Cart, {"items": [], "kind": "c"}, "payload.kind: must be one of 'a', 'b'"),
    (Cart, {"items": [], "extra": 1}, "payload.extra: is unknown"),
    (Cart, {"items": {}}, "payload.items: must be array, got object"),
    (Tree, {"value": 1, "children": [{"value": []}]}, "payload.children[0].value: must be"),
]


@pytest.mark.parametrize(("annotation", "value", "reason"), MISMATCHES, ids=str)
def test_a_mismatch_names_the_path(annotation: Any, value: Any, reason: str) -> None:
    wrong = mismatch(value, payload_schema(annotation))

    assert str(wrong).startswith(reason)
    assert not _is_taken(annotation, value)


@pytest.mark.parametrize("model", [Lenient, Trimmed, Renamed, OneOfTwo, Checked])
def test_a_model_whose_code_sees_values_first_has_no_schema(model: Any) -> None:
    assert payload_schema(model) is None


def test_a_large_schema_is_left_out() -> None:
    fields = [(f"field_{number}", int) for number in range(MAX_SCHEMA_BYTES // 20)]
    large = dataclasses.make_dataclass("Large", fields)

    assert payload_schema(large) is None


def test_an_annotation_that_cannot_be_read_has_no_schema() -> None:
    class Broken(BaseModel):
        @classmethod
        def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
            raise RuntimeError("no")

    assert payload_schema(Broken) is None


HOSTILE: list[Any] = [
    *(
        5,
        [],
        "x",
        {"type": 5},
        {"type": {"a": 1}},
        {"type": ["strange"]},
        {"enum": 5},
        {"anyOf": 1},
    ),
    *({"properties": []}, {"required": {"a": 1}}, {"required": [1]}, {"items": 3}, {"$ref": 7}),
    *({"$ref": "#/$defs/none"}, {"$ref": "https://example.com/x"}, {"minItems": "a"}),
    *({"additionalProperties": 5}, {"prefixItems": {"a": 1}}, {b"type": b"object"}, {"type": []}),
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 50}}, "$ref": "#/$defs/a"},
]


@pytest.mark.parametrize("schema", HOSTILE, ids=str)
def test_a_hostile_schema_refuses_nothing_by_mistake(schema: Any) -> None:
    for value in EXAMPLES:
        assert mismatch(value, schema) is None


def test_the_work_on_a_value_is_bounded() -> None:
    schema: Any = {"items": {"type": "integer"}}
    many: list[Any] = [1] * MAX_WORK

    assert mismatch([*many[:100], "x"], schema) is not None
    assert mismatch([*many, "x"], schema) is None
