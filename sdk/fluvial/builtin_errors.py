"""What CPython's exception classes keep outside of `__dict__`: `errno`, `lineno`, `args`, …

A user's exception is made by the builtin class at its bottom, without any constructor of its own,
and gets that class's attributes through its descriptors.
"""

from __future__ import annotations

import functools
import types
from contextlib import suppress
from typing import Any, Final

_HEAP_TYPE: Final = 1 << 9  # CPython's Py_TPFLAGS_HEAPTYPE: the class was made at run time
_ARGUMENTS: Final[Any] = vars(BaseException)["args"]  # past what a class may call `args` itself
# Kept elsewhere, but for `AttributeError.obj`, which may be anything.
_NOT_STATE: Final = frozenset({"args", "exceptions", "message", "obj"})
_UNICODE: Final[dict[type, tuple[str, ...]]] = {
    UnicodeEncodeError: ("encoding", "object", "start", "end", "reason"),
    UnicodeDecodeError: ("encoding", "object", "start", "end", "reason"),
    UnicodeTranslateError: ("object", "start", "end", "reason"),
}


def new_error(cls: Any) -> BaseException | None:
    """Return an exception of a class, empty; None where a builtin class does not make it alone."""
    base = _builtin_base(cls)
    if base.__module__ != "builtins":
        return None
    try:
        made: BaseException = base.__new__(cls)
    except TypeError:  # a group has no empty ones
        return None
    return made


def arguments_of(error: BaseException) -> tuple[Any, ...]:
    """Return `error.args`."""
    arguments: tuple[Any, ...] = _ARGUMENTS.__get__(error)
    return arguments


def set_arguments(error: BaseException, arguments: tuple[Any, ...]) -> None:
    """Set `error.args`."""
    _ARGUMENTS.__set__(error, arguments)


def built_in_state_of(error: BaseException) -> dict[str, Any]:
    """Return the attributes that the builtin class keeps for it, where they are set."""
    cls: Any = type(error)
    state: dict[str, Any] = {}
    for name, descriptor in _descriptors(_builtin_base(cls)).items():
        with suppress(AttributeError):
            value = descriptor.__get__(error)
            if value is not None:
                state[name] = value
    return state


def set_built_in_state(error: BaseException, state: dict[str, Any]) -> None:
    """Give these attributes back."""
    cls: Any = type(error)
    base = _builtin_base(cls)
    if base in _UNICODE:
        _set_unicode_state(error, base, state)
        return
    descriptors = _descriptors(base)
    for name, value in state.items():
        if name in descriptors:
            with suppress(AttributeError, TypeError):  # one that is only read
                descriptors[name].__set__(error, value)


def _set_unicode_state(error: BaseException, base: Any, state: dict[str, Any]) -> None:
    # Its text reads `object` where `start` says, unchecked: forged numbers would crash the process.
    # Only its __init__ checks types, and nothing checks the range.
    if 0 <= state["start"] <= state["end"] <= len(state["object"]):
        base.__init__(error, *(state[name] for name in _UNICODE[base]))


@functools.lru_cache(maxsize=1024)
def _builtin_base(cls: Any) -> Any:
    """The class written in C that decides how objects of `cls` look in memory."""
    base = cls
    while base.__flags__ & _HEAP_TYPE and base.__base__ is not None:
        base = base.__base__
    return base


@functools.lru_cache(maxsize=256)
def _descriptors(base: Any) -> dict[str, Any]:
    members: list[dict[str, Any]] = [vars(each) for each in base.__mro__]
    return {
        name: descriptor
        for own in members
        for name, descriptor in own.items()
        if isinstance(descriptor, (types.MemberDescriptorType, types.GetSetDescriptorType))
        and name not in _NOT_STATE
        and not name.startswith("__")
    }
