"""`datetime.now` and `datetime.utcnow` answered from the run, in the one and only `datetime` type.

They are methods of a type that cannot be changed, and a substitute for the type would not do:
`isinstance`, pickles, other C code and pydantic know the real one. So the two methods are replaced
in the type's own dictionary, which the interpreter does not show, but the garbage collector does,
and the interpreter is told to forget what it has cached of the type. Whether all that worked is
looked at on the spot; where it did not (an interpreter made otherwise), the type is as it was.

`datetime.today` and `date.today` need nothing: they ask `time.time`.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import warnings
from asyncio.events import (
    _get_running_loop,  # pyright: ignore[reportPrivateUsage] - in asyncio's __all__
)
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, cast

from fluvial.answers import answering_loop
from fluvial.loop import WorkflowLoop


def install() -> bool:
    """Replace the two methods; return whether that worked. If not, nothing has changed."""
    namespace = _namespace()
    if namespace is None:
        return False
    originals = {name: namespace[name] for name in ("now", "utcnow")}
    replacements = {"now": _now(originals["now"]), "utcnow": _utcnow(originals["now"])}
    for name, method in replacements.items():
        method.__name__, method.__qualname__ = name, f"datetime.{name}"
        method.__module__, method.__doc__ = datetime.__module__, originals[name].__doc__
    _put(namespace, {name: classmethod(method) for name, method in replacements.items()})
    if _is_seen(replacements):
        return True
    _put(namespace, originals)
    return False


def _namespace() -> dict[str, Any] | None:
    """Return the dictionary behind the read-only view that `datetime.__dict__` is."""
    if sys.implementation.name != "cpython":
        return None
    behind = gc.get_referents(vars(datetime))
    if len(behind) != 1 or type(behind[0]) is not dict:
        return None
    namespace = cast("dict[str, Any]", behind[0])
    return namespace if namespace == dict(vars(datetime)) else None


def _put(namespace: dict[str, Any], methods: dict[str, Any]) -> None:
    namespace.update(methods)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


def _is_seen(replacements: dict[str, Any]) -> bool:
    class Derived(datetime):
        pass

    return all(
        getattr(getattr(cls, name), "__func__", None) is method
        for name, method in replacements.items()
        for cls in (datetime, Derived)
    )


def _now(original: Callable[..., datetime]) -> Any:
    real = datetime.now
    from_timestamp: Callable[..., datetime] = vars(datetime)["fromtimestamp"]

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        if type(_get_running_loop()) is WorkflowLoop:
            loop = answering_loop()
            if loop is not None:
                return from_timestamp(cls, loop.time(), tz)
        # A method that is bound already is called faster than one that is not.
        return real(tz) if cls is datetime else original(cls, tz)

    return now


def _utcnow(now: Callable[..., datetime]) -> Any:
    """Not the original: its warning (from 3.12 on) would name this file, and not the caller's."""
    deprecation = _deprecation(datetime.utcnow)  # pyright: ignore[reportDeprecated] - what is replaced

    def utcnow(cls: type[datetime]) -> datetime:
        if deprecation is not None:
            warnings.warn(deprecation, DeprecationWarning, stacklevel=2)
        loop = answering_loop()
        moment = now(datetime, UTC) if loop is None else datetime.fromtimestamp(loop.time(), UTC)
        return cls(*moment.timetuple()[:6], moment.microsecond, None)

    return utcnow


def _deprecation(method: Callable[[], object]) -> str | None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method()
    return str(caught[0].message) if caught else None
