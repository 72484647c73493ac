"""Classes by name: how stored data names a class, and how it is found again.

A class is named `module:qualname`, or by the id under which it was registered. It is found only
where it is imported already, by looking into dictionaries: data never imports a module, and no
code of a module or class runs to find it.
"""

from __future__ import annotations

import collections
import functools
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Generic, Literal, TypeAlias, Union, cast

from fluvial.packing import UnsupportedValueError

TypeName: TypeAlias = str | list[Any] | None
"""A class's name, None for None's, or [form, …] for what is made of several."""

_registered: Final[dict[str, type]] = {}
_ids: Final[dict[type, str]] = {}
_CONTAINERS: Final[frozenset[Any]] = frozenset(
    {
        list,
        dict,
        set,
        frozenset,
        tuple,
        type,
        collections.deque,
        collections.OrderedDict,
        collections.defaultdict,
        collections.Counter,
    }
)


def register_name(class_id: str, cls: type) -> None:
    """Let stored data name `cls` by `class_id`, wherever it is defined."""
    _registered[class_id] = cls
    _ids[cls] = class_id


def registered_class(class_id: str) -> type | None:
    """Return the class of that id."""
    return _registered.get(class_id)


def name_of(cls: type) -> str:
    """Return the name under which `find_class` finds it, where it can."""
    return _ids.get(cls) or origin_of(cls)


def origin_of(cls: type) -> str:
    """Return where a class was defined: `module:qualname`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def find_class(name: str) -> Any:
    """Return the class of that name if it is imported already; else None."""
    registered = _registered.get(name)
    if registered is not None:
        return registered
    module, _, qualname = name.partition(":")
    first, *nested = qualname.split(".")
    # Past every __getattr__ and __getattribute__: a lazy module's would import, a proxy's may do
    # anything; `isinstance` asks a proxy as well.
    try:
        found: Any = object.__getattribute__(sys.modules[module], "__dict__")[first]
        for part in nested:
            found = type.__getattribute__(found, "__dict__")[part]
    except (KeyError, AttributeError, TypeError):
        return None
    if not issubclass(type(found), type):
        return None
    matches = found.__module__ == module and found.__qualname__ == qualname
    return found if matches else None


def is_model(cls: Any) -> bool:
    """Whether `cls` is a pydantic model; pydantic is never imported for the question."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def is_named_tuple(cls: Any) -> bool:
    """Whether `cls` is a named tuple."""
    return hasattr(cls, "_fields") and issubclass(cls, tuple)


@functools.lru_cache(maxsize=4096)
def slots_of(cls: Any) -> frozenset[str]:
    """Return the names of all slots of a class and its bases, as far as they are Python's."""
    own: list[dict[str, Any]] = [vars(base) for base in cls.__mro__]
    return frozenset(
        name
        for members in own
        if "__slots__" in members
        for name, value in members.items()
        if isinstance(value, types.MemberDescriptorType)
    )


def extra_state(cls: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an object's `__dict__` holds and must be kept: not what is only remembered."""
    return {
        name: value
        for name, value in state.items()
        if not (name.startswith("__") and name.endswith("__"))
        and not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def is_made_by_python(cls: type) -> bool:
    """Whether `object.__new__` makes it: no class written in C is among its bases."""
    for base in cls.__mro__:
        new = vars(base).get("__new__")
        if base is not object and new is not None and not isinstance(new, staticmethod):
            return False
    return True


def name_of_model(cls: Any) -> TypeName:
    """Return the name of a pydantic model; one made by `Page[Item]` is named by its parts.

    Raises:
        UnsupportedValueError: one of its parts has no name.
    """
    origin: type | None = cls.__pydantic_generic_metadata__["origin"]
    return name_of(cls) if origin is None else _name_of_type(cls)


def find_type(name: TypeName) -> Any:
    """Return the type of that name if all its classes are imported already; else None.

    Raises:
        ValueError, TypeError: it is not a name, or names what cannot be made.
    """
    if isinstance(name, str):
        return find_class(name)
    if name is None:
        return type(None)
    form, *parts = name
    if form == "literal":
        return Literal[tuple(parts)]
    found = tuple(find_type(part) for part in parts)
    if any(each is None for each in found):
        return None
    if form == "union":
        return Union[found]  # noqa: UP007 - of a tuple
    if form == "of":
        return _parametrized(found[0], found[1:])
    raise ValueError(f"unknown form of type {form!r}")


def _name_of_type(annotation: Any) -> TypeName:
    if annotation is None or annotation is type(None):
        return None
    origin, arguments = _parts_of(annotation)
    if origin is None and isinstance(annotation, type) and find_class(name_of(annotation)):
        return name_of(annotation)
    if origin is Literal:
        return ["literal", *arguments]
    if origin is Union or origin is types.UnionType:
        return ["union", *map(_name_of_type, arguments)]
    if isinstance(origin, type):
        return ["of", *map(_name_of_type, (origin, *arguments))]
    raise UnsupportedValueError(
        f"a generic model with the argument {annotation!r} cannot be stored; give it a class of its"
        " own: `class ItemPage(Page[Item]): ...`"
    )


def _parts_of(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if isinstance(annotation, type) and is_model(annotation):
        metadata = cast("Any", annotation).__pydantic_generic_metadata__
        return metadata["origin"], metadata["args"]
    return typing.get_origin(annotation), typing.get_args(annotation)


@functools.lru_cache(maxsize=1024)  # keeps what pydantic itself would drop and make anew
def _parametrized(origin: Any, arguments: tuple[Any, ...]) -> Any:
    if origin in _CONTAINERS or is_model(origin) or Generic in origin.__mro__:
        return origin[arguments]
    raise ValueError(f"{origin!r} takes no parameters")
