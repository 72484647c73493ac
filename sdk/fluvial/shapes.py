"""Shapes: what an annotation asks of a decoded value.

A value from the codec already has its types; only classes that could not be found by name, and
plain dicts handed over where a class is annotated, are left to shape. A value from JSON has few
types, so there every annotation counts. An annotation is compiled once into converters; `None`
stands for "nothing to do", which is the common case and costs nothing.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import threading
import types
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, Literal, Union, cast

from fluvial.classes import is_model, is_named_tuple
from fluvial.errors import SerializationError
from fluvial.json_scalars import key_of, kind_of, scalar_of
from fluvial.packing import TOO_DEEP
from fluvial.serializers import deserializer_of
from fluvial.shaped_classes import (
    to_dataclass,
    to_enum,
    to_fields,
    to_model,
    to_registered,
)
from fluvial.type_hints import alias_of, bare, value_of_alias

Convert = Callable[[Any, str], Any]
"""(value, path of the value) → the value in the annotated type; raises SerializationError."""

_MAX_ATTEMPTS: Final = 100_000
_MAX_REASON_CHARACTERS: Final = 300
_LISTS: Final = (list, tuple, set, frozenset, deque)
_MAPPINGS: Final = (dict, OrderedDict, defaultdict, Counter)


class _Underway(threading.local):
    """What goes on in this thread."""

    is_shaping = False
    attempts = 0  # of members of unions, for the value that is being shaped

    def __init__(self) -> None:
        self.aliases: set[Any] = set()  # that are being compiled


_underway = _Underway()


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A compiled annotation."""

    stored: Convert | None  # for values from the codec
    plain: Convert | None  # for values from JSON

    def apply(self, value: Any, is_plain: bool, path: str) -> Any:
        """Return `value` in the annotated type; `is_plain`: it came as JSON.

        Raises:
            SerializationError: it does not fit.
        """
        convert = self.plain if is_plain else self.stored
        if convert is None:
            return value
        if _underway.is_shaping:
            return convert(value, path)
        _underway.is_shaping, _underway.attempts = True, 0
        try:
            return convert(value, path)
        except RecursionError:
            raise SerializationError(path, TOO_DEEP) from None
        finally:
            _underway.is_shaping = False


ANY: Final = Shape(None, None)


def shape_of(annotation: Any) -> Shape:
    """Return the compiled form of an annotation (None and Any: no shape)."""
    try:
        return _cached_shape(annotation)
    except TypeError:  # not hashable, e.g. Annotated[int, {}]
        return Shape(_compile(annotation, False), _compile(annotation, True))


@functools.lru_cache(maxsize=4096)
def _cached_shape(annotation: Any) -> Shape:
    return Shape(_compile(annotation, False), _compile(annotation, True))


def _compile(annotation: Any, plain: bool) -> Convert | None:
    if annotation is Any or annotation is None or annotation is object:
        return None
    annotation = bare(annotation)
    if alias_of(annotation) is not None:
        return _alias(annotation, plain)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _union(arguments, plain)
    if origin is Literal:
        return _literal(arguments) if plain else None
    if isinstance(origin, type):
        return _generic(origin, arguments, plain)
    return _class(annotation, (), plain) if isinstance(annotation, type) else None


def _alias(annotation: Any, plain: bool) -> Convert | None:
    if annotation in _underway.aliases:  # it names itself: `type Json = list[Json] | str`
        return lambda value, path: shape_of(annotation).apply(value, plain, path)
    _underway.aliases.add(annotation)
    try:
        return _compile(value_of_alias(annotation), plain)
    finally:
        _underway.aliases.discard(annotation)


def _union(members: tuple[Any, ...], plain: bool) -> Convert | None:
    converters = [_compile(member, plain) for member in members]
    demanding = [convert for convert in converters if convert is not None]
    if not demanding:
        return None
    takes_anything = len(demanding) < len(converters)
    exact = tuple(m for m in members if isinstance(m, type))

    def convert_union(value: Any, path: str) -> Any:
        if value is None and (type(None) in members or None in members):
            return None
        if type(value) in exact:
            return value
        reasons: list[str] = []
        for convert in demanding:
            _count_attempt(path)
            try:
                return convert(value, path)
            except SerializationError as error:
                reason = error.reason if error.path == path else str(error)
                reasons.append(reason[:_MAX_REASON_CHARACTERS])
        if takes_anything:
            return value
        raise SerializationError(path, f"fits no member of the union ({'; '.join(reasons)})")

    return convert_union


def _count_attempt(path: str) -> None:
    # Members that hold unions again double the attempts with every level: data from outside could
    # keep the process busy for ever.
    _underway.attempts += 1
    if _underway.attempts > _MAX_ATTEMPTS:
        raise SerializationError(
            path,
            f"takes more than {_MAX_ATTEMPTS} attempts to fit into its unions; give their members a"
            " Literal that tells them apart",
        )


def _literal(choices: tuple[Any, ...]) -> Convert:
    def convert_literal(value: Any, path: str) -> Any:
        for choice in choices:
            wanted = choice.value if isinstance(choice, Enum) else choice
            if value == wanted and type(value) is type(wanted):
                return choice
        raise SerializationError(path, f"must be one of {', '.join(map(repr, choices))}")

    return convert_literal


def _generic(origin: Any, arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    if not arguments or _has_fields(origin):
        return _class(origin, arguments, plain)
    if issubclass(origin, tuple):
        return _tuple(arguments, plain)
    if issubclass(origin, Counter):
        return _mapping(origin, (arguments[0], int), plain)
    if issubclass(origin, collections.abc.Mapping) and len(arguments) == 2:
        return _mapping(origin, arguments, plain)
    if issubclass(origin, collections.abc.Iterable) and len(arguments) == 1:
        return _iterable(origin, arguments[0], plain)
    return None


def _has_fields(cls: Any) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        or is_model(cls)
        or typing.is_typeddict(cls)
        or is_named_tuple(cls)
    )


def _class(cls: Any, arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    deserialize = deserializer_of(cls)
    if deserialize is not None:
        return functools.partial(to_registered, cls, deserialize) if plain else None
    if is_model(cls):
        return functools.partial(to_model, cls, plain)
    if dataclasses.is_dataclass(cls):
        return functools.partial(to_dataclass, cls, arguments, shape_of)
    if issubclass(cls, Enum):
        return functools.partial(to_enum, cls)
    if typing.is_typeddict(cls) or is_named_tuple(cls):
        return functools.partial(to_fields, cls, arguments, shape_of) if plain else None
    if plain:
        return scalar_of(cls)
    return _to_bytearray if cls is bytearray else None


def _to_bytearray(value: Any, _path: str) -> Any:
    """msgpack knows no difference between bytes and bytearray."""
    return bytearray(value) if type(value) is bytes else value


def _iterable(origin: Any, item: Any, plain: bool) -> Convert | None:
    convert = _compile(item, plain)
    if convert is None and not plain:
        return None
    make = origin if origin in _LISTS else _any_list(origin, plain)

    def convert_items(value: Any, path: str) -> Any:
        if not isinstance(value, _LISTS):
            return _of_another_kind(value, path, origin, plain, "a list")
        given = cast("Any", value)
        if convert is None:
            items = given
        else:
            items = [convert(each, f"{path}[{i}]") for i, each in enumerate(given)]
        if type(given) is deque:
            return deque(items, given.maxlen)
        kind: Any = make if make is not None else cast("Any", type(given))
        return kind(items)

    return convert_items


def _any_list(origin: Any, plain: bool) -> Any:
    """What stands for Sequence, Iterable and the like: as it was stored, if it was."""
    if not plain:
        return None
    return set if issubclass(origin, collections.abc.Set) else list


def _of_another_kind(value: Any, path: str, origin: Any, plain: bool, wanted: str) -> Any:
    if not plain and isinstance(value, origin) and not isinstance(value, (str, bytes, dict)):
        return value  # a registered class, say: nothing is known of what it holds
    raise SerializationError(path, f"must be {wanted}, got {kind_of(value)}")


def _tuple(arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    if any(_is_unpacked(each) for each in arguments):
        return _class(tuple, (), plain)
    is_variadic = len(arguments) == 2 and arguments[1] is ...
    converters = [_compile(each, plain) for each in arguments if each is not ...]
    if not plain and all(convert is None for convert in converters):
        return None

    def convert_tuple(value: Any, path: str) -> Any:
        if not isinstance(value, (list, tuple)):
            raise SerializationError(path, f"must be a list, got {kind_of(value)}")
        items = cast("list[Any]", value)
        each = converters * len(items) if is_variadic else converters
        if len(each) != len(items):
            raise SerializationError(path, f"must have {len(each)} items, got {len(items)}")
        pairs = enumerate(zip(items, each, strict=True))
        return tuple(c(v, f"{path}[{i}]") if c is not None else v for i, (v, c) in pairs)

    return convert_tuple


def _is_unpacked(argument: Any) -> bool:
    """Whether it is a `*tuple[...]`: how many items that stands for is not looked into."""
    is_starred: bool = getattr(argument, "__unpacked__", False)
    return is_starred or typing.get_origin(argument) is typing.Unpack


def _mapping(origin: Any, arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    key = _key(arguments[0]) if plain else _compile(arguments[0], plain)
    item = _compile(arguments[1], plain)
    if key is None and item is None and not plain:
        return None

    def convert_mapping(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return _of_another_kind(value, path, origin, plain, "an object")
        given = cast("dict[Any, Any]", value)
        items = (
            (
                key(k, path) if key is not None else k,
                item(v, f"{path}[{k!r}]") if item is not None else v,
            )
            for k, v in given.items()
        )
        return _make_mapping(origin if plain else type(given), given, arguments[1], items)

    return convert_mapping


def _make_mapping(
    cls: Any, given: dict[Any, Any], item: Any, items: Iterable[tuple[Any, Any]]
) -> dict[Any, Any]:
    if cls is defaultdict:
        factory = typing.get_origin(item) or item
        made = factory if factory in {*_LISTS, *_MAPPINGS, int, float, str} else None
        return defaultdict(getattr(given, "default_factory", made), items)
    if cls is Counter:
        return Counter(dict(items))
    return OrderedDict(items) if cls is OrderedDict else dict(items)


def _key(annotation: Any) -> Convert | None:
    """A converter of an object's keys, which are always texts in JSON."""
    annotation = bare(annotation)
    if alias_of(annotation) is not None:
        return _key(value_of_alias(annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _key_of_union(arguments)
    if origin is Literal:
        return _key_of_choices({str(_value_of(choice)): choice for choice in arguments})
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        by_name: dict[str, Any] = dict(annotation.__members__)
        return _key_of_choices(by_name | {str(member.value): member for member in annotation})
    if annotation in {int, float, complex, bool, type(None)}:
        return functools.partial(_to_key, annotation)
    return _compile(annotation, True)


def _key_of_union(members: tuple[Any, ...]) -> Convert | None:
    # A text takes any key: it comes last.
    converters = [_key(member) for member in members if member is not str]
    converters += [_key(str)] if str in members else []

    def convert_key(value: Any, path: str) -> Any:
        for convert in converters:
            if convert is None:
                return value
            try:
                return convert(value, path)
            except SerializationError:
                continue
        raise SerializationError(path, f"has a key {value!r} that fits no member of the union")

    return convert_key


def _key_of_choices(choices: Mapping[str, Any]) -> Convert:
    def convert_key(value: Any, path: str) -> Any:
        if value in choices:
            return choices[value]
        raise SerializationError(
            path, f"has a key {value!r} that is not one of {', '.join(choices)}"
        )

    return convert_key


def _value_of(choice: Any) -> Any:
    return choice.value if isinstance(choice, Enum) else choice


def _to_key(cls: Any, value: Any, path: str) -> Any:
    try:
        return key_of(cls, value)
    except (ValueError, KeyError):
        name = "null" if cls is type(None) else cls.__name__
        raise SerializationError(path, f"has a key {value!r} that is not of type {name}") from None
