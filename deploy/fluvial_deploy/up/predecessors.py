"""A supervisor that was killed leaves programs behind that are just ending: wait for them.

They got SIGTERM when it died, but a gateway drains before it lets go of its ports.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from fluvial_deploy.up.home import Home
from fluvial_deploy.up.keeping import Tell, wait_readable

_DRAIN_SECONDS: Final = 25.0  # a gateway's grace, and some


async def wait_for_predecessor(home: Home, tell: Tell) -> bool:
    """Return whether a gateway of an earlier `up` of this home was there and has ended."""
    pid = home.state().get("gateway")
    if not isinstance(pid, int) or not _is_gateway(pid):
        return False
    tell(f"an earlier `up` died; waiting for its gateway (pid {pid}) to end")
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await wait_readable(pidfd)
                return True
        return False
    finally:
        os.close(pidfd)


def _is_gateway(pid: int) -> bool:
    """Return whether `pid` is still what it was: process ids are used again."""
    try:
        return b"fluvial_gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
