"""Watches the system calls of a process: run as `python -m tests.e2e.tracing PID`.

Prints one line per finished call of the process's main thread, `name result` and, for a call about
a file descriptor, what that is open on, until its standard input is closed. A program of its own,
because the thread that attaches must do all the tracing.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any

from ptrace.debugger import PtraceDebugger
from ptrace.func_call import FunctionCallOptions


def main(pid: int) -> None:
    """Trace until standard input ends."""
    debugger = PtraceDebugger()
    process = debugger.addProcess(pid, is_attached=False)
    _say("attached")
    options = FunctionCallOptions()
    try:
        while not select.select([sys.stdin], [], [], 0)[0]:
            process.syscall()
            event = debugger.waitSyscall()
            state = event.process.syscall_state
            call = state.event(options)
            if call is not None and call.result is not None:
                _say(f"{call.name} {call.result} {_target(pid, call)}")
    finally:
        os.kill(pid, signal.SIGCONT)
        debugger.quit()


def _target(pid: int, call: Any) -> str:
    """Return the path of the first argument, a file descriptor; empty where it is none."""
    if not call.arguments or call.arguments[0].name != "fd":
        return ""
    try:
        return os.readlink(f"/proc/{pid}/fd/{call.arguments[0].value}")
    except FileNotFoundError:  # closed by now
        return ""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
