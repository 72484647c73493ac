"""Order: what asyncio takes from sets of addresses comes in the order of making in a workflow.

The loop's own tasks and futures hash by number (`fluvial.loop`). Three places are left:

    as_completed    makes tasks of coroutines in the order of a set of coroutines
    all_tasks       looks through the tasks of all loops
    gather          returns a future of a class of its own
"""

from __future__ import annotations

import asyncio
from asyncio import tasks
from collections.abc import Awaitable, Iterable
from typing import Any, Final

from fluvial.loop import WorkflowLoop, current_loop
from fluvial.replacements import Function, replace_function

_NUMBER: Final = "_fluvial_number"


def install() -> None:
    """Put asyncio in order; nothing changes for other loops."""
    for owner in (asyncio, tasks):
        replace_function(owner, "as_completed", _as_completed)
        replace_function(owner, "all_tasks", _all_tasks)
        replace_function(owner, "gather", _gather)
    gathering: Any = vars(tasks)["_GatheringFuture"]
    gathering.__hash__ = _hash_by_number


def _as_completed(real: Function) -> Function:
    def as_completed(fs: Iterable[Awaitable[Any]], **options: Any) -> Any:
        if current_loop() is not None:
            fs = [asyncio.ensure_future(each) for each in fs]
        return real(fs, **options)

    return as_completed


def _all_tasks(real: Function) -> Function:
    def all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> Any:
        wanted = current_loop() if loop is None else loop
        return wanted.unfinished_tasks() if isinstance(wanted, WorkflowLoop) else real(loop)

    return all_tasks


def _gather(real: Function) -> Function:
    def gather(*awaitables: Any, **options: Any) -> Any:
        future = real(*awaitables, **options)
        loop = current_loop()
        if loop is not None:
            setattr(future, _NUMBER, loop.next_number())
        return future

    return gather


def _hash_by_number(future: Any) -> int:
    number: int | None = getattr(future, _NUMBER, None)
    return object.__hash__(future) if number is None else number
