"""Old logs go: by the clock, also while no invoker runs that would write new ones."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from fluvial.log_files import LogLimits, sweep

SWEEP_SECONDS: Final = 3600.0

_LOG = logging.getLogger(__name__)


async def sweep_logs(folder: Path, limits: LogLimits, stop: asyncio.Event) -> None:
    """Delete what is too old or too much now, and once an hour until `stop` is set."""
    while True:
        try:
            deleted = await asyncio.to_thread(sweep, folder, limits, round(time.time() * 1000))
        except OSError as error:
            _LOG.warning("old logs were not deleted", extra={"reason": str(error)})
        else:
            if deleted:
                _LOG.info("old logs deleted", extra={"segments": deleted})
        try:
            async with asyncio.timeout(SWEEP_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
        return
