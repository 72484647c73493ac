"""Data that nobody wrote: every decode gives a value or a SerializationError, soon."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluvial.codec import decode, encode
from fluvial.errors import SerializationError
from fluvial.packing import Code, pack
from tests.unit.fluvial.sample_values import Cart, Item, Order, Page, values

ANNOTATIONS = [
    None,
    int,
    list[Item],
    dict[int, Item],
    Cart,
    Order,
    Page[int],
    Item | Cart | None,
    set[str],
    tuple[int, ...],
    bytearray,
]


def survives(data: bytes, annotation: Any = None) -> None:
    """Decode; anything but a value or a SerializationError fails the test."""
    try:
        decode(data, annotation)
    except SerializationError:
        return


def extension(code: int, body: bytes) -> bytes:
    return b"m" + msgpack.packb(msgpack.ExtType(code, body))


codes = st.sampled_from([int(code) for code in Code])
bodies = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-5, 2**40),
            st.floats(),
            st.text(max_size=20),
            st.binary(max_size=20),
            st.sampled_from(
                [
                    "builtins:ValueError",
                    "builtins:ExceptionGroup",
                    "fluvial.errors:SerializationError",
                    f"{Item.__module__}:Item",
                    f"{Item.__module__}:Colour",
                    f"{Item.__module__}:Point",
                    f"{Item.__module__}:Order",
                    f"{Item.__module__}:Page",
                    "state",
                    "json",
                    "of",
                    "literal",
                    "union",
                    "start",
                    "object",
                    "__dict__",
                ]
            ),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=12), st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=20,
    ).map(pack),
)


@given(st.binary(max_size=300), st.sampled_from([b"m", b"j", b"M", b"J", b"", b"x"]))
@settings(max_examples=500, deadline=None)
def test_arbitrary_bytes(data: bytes, form: bytes) -> None:
    survives(form + data)


@given(codes, bodies, st.sampled_from(ANNOTATIONS))
@settings(max_examples=600, deadline=None)
def test_arbitrary_bodies_of_every_kind(code: int, body: bytes, annotation: Any) -> None:
    survives(extension(code, body), annotation)


errors = st.recursive(
    st.builds(ValueError, st.integers()),
    lambda inner: st.one_of(
        st.builds(KeyError, inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: ExceptionGroup("g", some)),
    ),
    max_leaves=5,
)


@given(st.one_of(values, errors), st.data(), st.sampled_from(ANNOTATIONS))
@settings(max_examples=300, deadline=None)
def test_mutated_encodings(value: Any, data: st.DataObject, annotation: Any) -> None:
    plain = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(plain) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "double", "put"])):
            case "flip":
                plain[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del plain[place : place + data.draw(st.integers(1, 8))]
            case "double":
                plain[place:place] = plain[place : place + data.draw(st.integers(1, 40))]
            case _:
                plain[place:place] = data.draw(st.binary(max_size=8))
        if not plain:
            return
    survives(bytes(plain), annotation)


@given(st.text(max_size=60), st.sampled_from(ANNOTATIONS))
@example("[" * 5000, None)
@example('{"a":' * 5000, Cart)
@settings(max_examples=300, deadline=None)
def test_arbitrary_json(text: str, annotation: Any) -> None:
    survives(b"j" + text.encode(), annotation)


FORGED: list[tuple[Code, Any]] = [
    (Code.FRACTION, ["1e999999999"]),
    (Code.FRACTION, ["1e999999999", 1]),
    (Code.FRACTION, [1, 0]),
    (Code.RANGE, [1, 2, 0]),
    (Code.DEQUE, [[], -1]),
    (Code.ADDRESS, ["IPv4Address", 5]),
    (Code.ADDRESS, ["Path", "x"]),
    (Code.DEFAULT_DICT, ["open", {}]),
    (Code.TIMEDELTA, [10**12, 0, 0]),
    (Code.REGISTERED, ["nobody", 1]),
    (Code.REGISTERED, [[], 1]),
    (Code.DATACLASS, [f"{Item.__module__}:Item", 5]),
    (Code.DATACLASS, [f"{Item.__module__}:Item", {}]),
    (Code.MODEL, [["of", "builtins:type", "builtins:int"], "state", {}]),
    (Code.MODEL, [["of"], "state", {}]),
    (Code.ENUM, [f"{Item.__module__}:Colour", []]),
    (Code.EXCEPTION, 0),
    (Code.EXCEPTION, []),
    (Code.EXCEPTION, [[]]),
]


@pytest.mark.parametrize(("code", "content"), FORGED, ids=range(19))
def test_forged_contents_are_refused(code: Code, content: Any) -> None:
    with pytest.raises(SerializationError):
        decode(extension(code, pack(content)))


def record(name: str = "builtins:ValueError", **fields: Any) -> list[Any]:
    """A record of an exception, as `fluvial.failures` writes it."""
    whole: dict[str, Any] = {
        "name": name,
        "text": "t",
        "group": None,
        "arguments": pack([]),
        "built_in": pack({}),
        "own": pack({}),
        "traceback": "",
        "notes": [],
        "cause": None,
        "context": None,
        "suppress": False,
    }
    return list((whole | fields).values())


def decoded(*records: list[Any]) -> Any:
    return decode(extension(Code.EXCEPTION, pack(list(records))))


def test_forged_circles_of_causes_are_opened() -> None:
    back = decoded(record(cause=1), record(context=2), record(cause=0, context=1))

    chain: list[BaseException] = []
    error: BaseException | None = back
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert len(chain) == 3


def test_forged_circles_of_groups_are_opened() -> None:
    name = "builtins:ExceptionGroup"
    back = decoded(record(name, group=["a", [1, 2]]), record(name, group=["b", [0]]), record())

    assert back.split(ValueError)[0] is not None  # it ends


@pytest.mark.parametrize(
    "records",
    [
        [record(cause=7)],
        [record(cause=-1)],
        [record(group=["g", [5]])],
        [record(own=b"\xc1")],
        [record(own=pack({"a": 1})[:-1])],
        [record(arguments=extension(Code.EXCEPTION, pack(9))[1:])],
        [record()[:-1]],
        [record()] * 1001,
    ],
    ids=range(8),
)
def test_forged_records_are_refused(records: list[list[Any]]) -> None:
    with pytest.raises(SerializationError):
        decoded(*records)


def test_attributes_that_python_keeps_for_itself_are_not_taken() -> None:
    back = decoded(
        record(own=pack({"__class__": 1, "__traceback__": 2, "__dict__": {}, "fine": 3}))
    )

    assert vars(back) == {"fine": 3}


def test_the_state_of_a_unicode_error_is_checked() -> None:
    state = {"encoding": "x", "object": b"y", "reason": "r"}
    for start, end in ((-(2**40), 1), (0, 2**40), (5, 1)):
        built_in = pack(state | {"start": start, "end": end})
        assert str(decoded(record("builtins:UnicodeDecodeError", built_in=built_in))) == ""


def test_the_memory_of_a_decode_is_bounded_by_its_data() -> None:
    huge = b"\xff\xff\xff\xff"
    claims = (b"\xdd" + huge, b"\xdf" + huge, b"\xc6" + huge, b"\xc9" + huge + b"\x0a")
    tracemalloc.start()
    try:
        for claim in claims:
            survives(b"m" + claim + b"\x01" * 100)
            survives(extension(Code.TUPLE, claim + b"\x01" * 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10_000_000
