"""Hooks around a snapshot: what an app must let go of before, and take up again after.

A snapshot is a process that has imported the app and answered a request; new instances are forked
from it (`docs/cold-starts.md`). What a module holds when it is taken, every instance would share:
so close connections and files before, and open them again after.

    from fluvial import register_after_restore, register_before_snapshot

    @register_before_snapshot
    def hang_up() -> None:
        pool.close()

Names and rules are those of AWS Lambda's `snapshot_restore_py`, whose hooks run too where an app
uses it: before the snapshot last registered first, after it first registered first. Where there is
no snapshot, no hook runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Hook = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]

_COMPATIBLE: Final = "snapshot_restore_py"
_before: Final[list[_Hook]] = []
_after: Final[list[_Hook]] = []


def register_before_snapshot(
    func: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
) -> Callable[_P, _T]:
    """Call `func` with the arguments before a snapshot is taken; return `func`, as a decorator.

    What it raises means that there is no snapshot; instances start without one.
    """
    _before.append((func, args, kwargs))
    return func


def register_after_restore(
    func: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
) -> Callable[_P, _T]:
    """Call `func` with the arguments in each instance that comes from a snapshot, before its
    lifespan start-up; return `func`, as a decorator.

    What it raises ends that instance, and the next ones start without the snapshot.
    """
    _after.append((func, args, kwargs))
    return func


def run_before_snapshot() -> None:
    """Call the hooks, last registered first: first ours, then the compatible package's."""
    for hooks in (_before, _compatible("get_before_snapshot")):
        for func, args, kwargs in reversed(hooks):
            func(*args, **kwargs)


def run_after_restore() -> None:
    """Call the hooks, first registered first: the compatible package's, then ours."""
    for hooks in (_compatible("get_after_restore"), _after):
        for func, args, kwargs in hooks:
            func(*args, **kwargs)


def _compatible(registry: str) -> list[_Hook]:
    """Return what the app has registered with the package; not imported: nothing."""
    module = sys.modules.get(_COMPATIBLE)
    read = getattr(module, registry, None)
    return [] if read is None else list(cast("list[_Hook]", read()))
