"""`sleep`: a wait that survives anything and costs nothing while it lasts."""

from __future__ import annotations

import asyncio
from datetime import datetime

from fluvial.durations import Duration, to_seconds
from fluvial.errors import InvalidRequestError, NotInWorkflowError
from fluvial.loop import current_loop


async def sleep(until: Duration | datetime) -> None:
    """Wait durably: for `"1h 30m"`, for seconds, for a timedelta, or until an aware datetime.

    Raises:
        NotInWorkflowError: no workflow is running here (use `asyncio.sleep`).
        InvalidRequestError: the duration is wrong.
    """
    loop = current_loop()
    if loop is None:
        raise NotInWorkflowError("fluvial.sleep() works in workflows; elsewhere use asyncio.sleep")
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise InvalidRequestError(f"sleep needs a datetime with a time zone, got {until!r}")
        seconds = max(0.0, until.timestamp() - loop.time())
    else:
        seconds = to_seconds(until, "sleep")
    await asyncio.sleep(seconds)
