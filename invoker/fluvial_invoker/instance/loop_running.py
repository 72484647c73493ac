"""The event loop goes on until the instance is over, whatever the code in it does to it.

`loop.stop()`, and `sys.exit()` in a callback, end the loop's run; the invocations that are under
way in it are none of theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fluvial_invoker.instance.metering import instance_meter
from fluvial_invoker.instance.output import report, report_exception

_T = TypeVar("_T")


def run_to_its_end(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` on `loop`; return its result."""
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            report_exception(error, instance_meter, "a callback tried to end the instance")
        except RuntimeError:  # the loop's own word for having been stopped
            if task.done():
                raise
            report("the app's code stopped the event loop: it goes on", instance_meter)
