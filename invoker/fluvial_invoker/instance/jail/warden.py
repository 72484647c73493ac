"""The process between an instance in a jail and the rest of the machine.

A process cannot move into a new namespace of processes, only its children can be born there. So an
instance is a child of the process that its zygote and its invoker know. That one executes nothing
but this: it passes signals on, and ends the way the instance ends. It dies with its parent, the
instance dies with it, and being process 1 of its namespace takes all that it has started along.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from typing import Final, NoReturn

from fluvial_invoker.instance.jail.kernel import control_process

_SET_PARENT_DEATH_SIGNAL: Final = 1
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def fork_inside() -> None:
    """Fork; return in the child alone. The parent stays as its warden, and ends with it."""
    alive, held = os.pipe()
    instance = os.fork()
    if instance:
        _watch(instance, held)
    os.close(held)
    control_process(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    poll = select.poll()
    poll.register(alive, select.POLLIN)
    if poll.poll(0):
        os._exit(0)  # the warden died before the line that makes this process die with it
    os.close(alive)


def _watch(instance: int, held: int) -> NoReturn:
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _: os.kill(instance, received))
    # The ends of the instance's connections say whether *it* has closed them.
    os.closerange(0, held)
    os.closerange(held + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    _, status = os.waitpid(instance, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
