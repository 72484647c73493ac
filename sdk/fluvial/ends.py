"""How the process of an instance ended: what the invoker tells, and what people read.

    exit:3      it ended itself with a status
    signal:11   a signal ended it that the platform did not send
    killed      the platform ended it, because it did not end when it was told to

Everything else is the name of an orderly end, such as `idle` or `terminated`.
"""

from __future__ import annotations

import re
import signal
from typing import Final

KILLED: Final = "killed"
_EXIT: Final = re.compile(r"exit:([0-9]{1,3})")
_SIGNAL: Final = re.compile(r"signal:([0-9]{1,2})")


def end_of_process(exit_code: int | None) -> str:
    """Return the end that an exit code stands for; negative: the signal, None: nobody saw it."""
    if exit_code is None:
        return "signal:9"  # its zygote is gone, and the kernel killed it for that
    return f"exit:{exit_code}" if exit_code >= 0 else f"signal:{-exit_code}"


def describe_end(end: str) -> str | None:
    """Return how a process ended, in words; None for an orderly end, and for what is no end."""
    if end == KILLED:
        return "it did not stop when it was told to, and was killed"
    if status := _EXIT.fullmatch(end):
        return f"its process ended itself with exit status {status[1]}"
    if number := _SIGNAL.fullmatch(end):
        return f"its process was ended by {_name(int(number[1]))}"
    return None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
