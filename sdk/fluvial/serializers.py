"""Types that users register: classes with their own way into plain data and out of it again.

    @serializable
    class Money:
        def _workflow_serialize(self) -> list[object]: ...
        @classmethod
        def _workflow_deserialize(cls, data: list[object]) -> Money: ...

    register_serializable(Matrix, Matrix.tolist, Matrix)     # a class of somebody else

The data holds the type's id, never code: what is read back is made by what is registered then.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar, cast, overload

from fluvial.classes import (
    find_class,
    is_model,
    is_named_tuple,
    name_of,
    origin_of,
    register_name,
    registered_class,
)
from fluvial.errors import InvalidRequestError
from fluvial.packing import (
    Code,
    UnreadableValueError,
    UnsupportedValueError,
    define,
    define_family,
    is_built_in,
    pack,
    unpack,
)

T = TypeVar("T")

MAX_ID_BYTES: Final = 256
_TO_PLAIN: Final = "_workflow_serialize"
_FROM_PLAIN: Final = "_workflow_deserialize"


@dataclasses.dataclass(frozen=True, slots=True)
class _Serializer:
    serialize: Callable[[Any], Any]
    deserialize: Callable[[Any], Any]


_serializers: Final[dict[type, _Serializer]] = {}


@overload
def serializable(cls: type[T], /) -> type[T]: ...
@overload
def serializable(*, class_id: str | None = None) -> Callable[[type[T]], type[T]]: ...
def serializable(cls: Any = None, /, *, class_id: str | None = None) -> Any:
    """Let values of a class be stored: arguments, results, payloads.

    The class says how, with a method `_workflow_serialize` that returns plain data (or anything
    else that can be stored) and a class method `_workflow_deserialize` that takes it back. An enum,
    a dataclass, a pydantic model, a named tuple or an exception needs neither: there the decorator
    only gives it a lasting id, so that it may be renamed or moved.

    Args:
        class_id: how stored data names the class; default: `module:qualname`.

    Raises:
        InvalidRequestError: the methods are missing, or another class has the id.
    """

    def decorate(decorated: type[T]) -> type[T]:
        register_serializable(decorated, class_id=class_id)
        return decorated

    return decorate if cls is None else decorate(cls)


def register_serializable(
    cls: type[T],
    serialize: Callable[[T], Any] | None = None,
    deserialize: Callable[[Any], T] | None = None,
    *,
    class_id: str | None = None,
) -> None:
    """Do as `@serializable` does, for a class that cannot be decorated.

    `serialize` returns plain data for a value, `deserialize` makes the value of it. Both run in
    steps and in workflow code: let them touch nothing else. They serve exactly this class; a
    subclass is registered on its own.

    An exception keeps its own form (`fluvial.failures`), whatever is given here.

    Raises:
        InvalidRequestError: one of them is missing, another class has the id, or values of the
            class are stored as they are anyway.
    """
    name = class_id if class_id is not None else origin_of(cls)
    _check_id(name, cls)
    if is_built_in(cls):
        raise InvalidRequestError(f"values of {cls.__qualname__} are stored as they are")
    needs_nothing = serialize is None and deserialize is None and _describes_itself(cls)
    if needs_nothing or issubclass(cls, BaseException):
        if class_id is not None:
            register_name(name, cls)
        return
    serializer = _Serializer(
        serialize if serialize is not None else _method(cls, _TO_PLAIN, "serialize"),
        deserialize if deserialize is not None else _method(cls, _FROM_PLAIN, "deserialize"),
    )
    register_name(name, cls)
    _serializers[cls] = serializer
    define(Code.REGISTERED, cls, _pack_registered, _unpack_registered)


def deserializer_of(cls: Any) -> Callable[[Any], Any] | None:
    """Return what makes a value of a registered class from plain data; None for other classes."""
    serializer = _serializers.get(cls)
    return None if serializer is None else serializer.deserialize


def plain_data_of(value: object) -> Any:
    """Return the plain data of a value of a registered class; of others, the value."""
    serializer = _serializers.get(type(value))
    return value if serializer is None else serializer.serialize(value)


def define_registered() -> None:
    """Refuse relatives of registered classes, and let stored values be read."""
    define_family(Code.REGISTERED, _is_relative, _refuse_relative, _unpack_registered)


def _pack_registered(value: Any) -> bytes:
    cls = cast("type[Any]", type(value))
    try:
        plain = _serializers[cls].serialize(value)
    except Exception as error:
        raise UnsupportedValueError(
            f"its serializer failed ({type(error).__name__}: {error})"
        ) from error
    return pack([name_of(cls), plain])


def _unpack_registered(data: bytes) -> Any:
    name, plain = unpack(data)
    deserialize = deserializer_of(registered_class(name))
    if deserialize is None:
        raise UnreadableValueError(
            f"holds a value of the type {name!r}, which is not registered here; apply"
            f" @serializable(class_id={name!r}) to its class, or call register_serializable, in a"
            " module that the deployment imports"
        )
    try:
        return deserialize(plain)
    except Exception as error:
        raise UnreadableValueError(
            f"the deserializer of {name!r} failed ({type(error).__name__}: {error})"
        ) from error


def _is_relative(cls: Any) -> bool:
    """Whether values of a class would lose what its serializer, or that of a base, knows."""
    return hasattr(cls, _TO_PLAIN) or any(base in _serializers for base in cls.__mro__)


def _refuse_relative(value: object) -> bytes:
    raise UnsupportedValueError(
        f"the class {type(value).__qualname__} is not registered, though a base of it is, or it has"
        f" {_TO_PLAIN}: put @serializable on top of its decorators, or call register_serializable"
    )


def _check_id(class_id: str, cls: type) -> None:
    if not 1 <= len(class_id.encode()) <= MAX_ID_BYTES:
        raise InvalidRequestError(f"a class id must have 1 to {MAX_ID_BYTES} bytes: {class_id!r}")
    other = find_class(class_id)
    # A module that is imported anew makes its classes anew: the newest one counts.
    if other is not None and origin_of(other) != origin_of(cls):
        raise InvalidRequestError(
            f"the class id {class_id!r} is that of {origin_of(other)}; choose another one for"
            f" {origin_of(cls)}"
        )


def _describes_itself(cls: Any) -> bool:
    if hasattr(cls, _TO_PLAIN) or hasattr(cls, _FROM_PLAIN):
        return False
    return (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, Enum)
        or is_model(cls)
        or is_named_tuple(cls)
    )


def _method(cls: type, name: str, argument: str) -> Callable[[Any], Any]:
    if not hasattr(cls, name):
        raise InvalidRequestError(
            f"{cls.__qualname__} needs a method {name}, or {argument}=… when it is registered"
        )
    if name == _TO_PLAIN:
        return operator.methodcaller(name)
    return cast("Callable[[Any], Any]", getattr(cls, name))
