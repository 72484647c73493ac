"""`start` and `execute`: begin a run, from anywhere in deployed code."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from fluvial.children import ChildRun, start_child
from fluvial.context import platform
from fluvial.loop import current_loop
from fluvial.options import DEFAULT_OPTIONS, StartOptions
from fluvial.ports import ClockPort, Platform
from fluvial.runs import Run, id_of_key
from fluvial.signatures import encode_call
from fluvial.unguarded import time_ns
from fluvial.workflows import Workflow

R = TypeVar("R")


async def start(
    workflow: Workflow[..., R],
    *args: Any,
    key: str | None = None,
    options: StartOptions = DEFAULT_OPTIONS,
    **kwargs: Any,
) -> Run[R]:
    """Start a run of a workflow and return it at once.

    With `key`, starting again with the same key and the same arguments returns the same run.
    Inside a workflow the run is a *child*: started exactly once, durably, and closed with its
    parent as the options say.

    Raises:
        StartConflictError: the key was used with other arguments, or a singleton is alive.
        SerializationError: an argument cannot be stored; the path names it.
        TypeError: the arguments do not fit the workflow.
    """
    workflow.signature.parameters.bind(*args, **kwargs)  # a wrong call fails here, not in the run
    loop = current_loop()
    if loop is not None:
        return await start_child(loop, workflow, args, kwargs, key=key, options=options)
    served_by = platform("start")
    plaintext = encode_call(args, kwargs)
    name = workflow.name
    run_id = served_by.new_run_id() if key is None else id_of_key(served_by, name, key)
    arguments = {
        "workflow": name,
        "run_id": run_id,
        "key": key,
        "fingerprint": served_by.keys.fingerprint(name, plaintext),
        **options.to_meta(_now_seconds(served_by)),
    }
    sealed = served_by.keys.for_run(run_id).seal(plaintext, "input")
    found, _ = await served_by.call("start", arguments, sealed)
    return Run(str(found["run_id"]), served_by, workflow)


def _now_seconds(served_by: Platform) -> float:
    return served_by.now_seconds() if isinstance(served_by, ClockPort) else time_ns() / 1e9


async def execute(
    workflow: Workflow[..., R],
    *args: Any,
    key: str | None = None,
    options: StartOptions = DEFAULT_OPTIONS,
    **kwargs: Any,
) -> R:
    """Start a run and wait for its result; to be cancelled meanwhile cancels the run.

    Raises:
        what `start` and `Run.result` raise.
    """
    run = await start(workflow, *args, key=key, options=options, **kwargs)
    try:
        return await run.result()
    except asyncio.CancelledError:
        if isinstance(run, ChildRun):
            await run.cancel()
        raise
