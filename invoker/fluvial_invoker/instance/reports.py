"""A record for each invocation that has ended, where the manifest asks for it: what became of it,
how long it took, and what it used."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from fluvial_invoker.instance.invocations import OUTCOME_CANCELLED, OUTCOME_OK, Invocation
from fluvial_invoker.instance.output import report

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATISTICS: Final = "/proc/self/statm"


class InvocationReports:
    """Writes the records."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __call__(self, invocation: Invocation) -> None:
        outcome, details = invocation.ending()
        milliseconds = round((self._loop.time() - invocation.began) * 1000, 3)
        cpu_ms = invocation.cpu_us / 1000
        fields = {
            "event": "finished",
            "outcome": outcome,
            **details,
            "duration_ms": milliseconds,
            "active_cpu_ms": cpu_ms,
            "memory_bytes": _resident_bytes(),
        }
        text = f"finished: {outcome} after {milliseconds} ms, {cpu_ms} ms of CPU"
        is_well = outcome in (OUTCOME_OK, OUTCOME_CANCELLED)
        report(text, invocation, level="info" if is_well else "error", fields=fields)


def _resident_bytes() -> int:
    """Return the memory of the whole instance, which all of its invocations share."""
    with open(_STATISTICS, "rb") as statistics:
        return int(statistics.read().split()[1]) * _PAGE_BYTES
