"""Errors that nobody retrieves from a task: logged with the task's own invocation.

They are reported when the task is freed, which may be much later and in the middle of another
invocation's work.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fluvial_invoker.instance.metering import current, meter_of


def attribute_task_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Name the invocation of a task in what `loop` reports about it."""
    loop.set_exception_handler(_report)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    meter = meter_of(context.get("task") or context.get("future"))
    token = current.set(meter or current.get())
    try:
        loop.default_exception_handler(context)
    finally:
        current.reset(token)
