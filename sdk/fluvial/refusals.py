"""Refusals: what workflow code must not do raises `WorkflowSandboxError`, and is not done.

Most of it is told by Python's audit events, which no alias escapes:

    always            processes, sockets, names on the network, signals to processes, input()
    but for logging   files opened for writing, made, moved or removed: a log handler may
    by the user       files and folders read, the environment and working directory changed. What
                      libraries read for themselves (modules, time zones, source lines) goes through

What Python does not tell of is replaced by functions that refuse: sleeping, threads and waiting for
them, other event loops, `select`, signal handlers.
"""

from __future__ import annotations

import _thread
import asyncio
import inspect
import os
import select
import signal
import sys
import threading
import time
from asyncio.events import (
    _get_running_loop,  # pyright: ignore[reportPrivateUsage] - in asyncio's __all__
)
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import BuiltinFunctionType
from typing import Any, Final

from fluvial.callers import USER, acting_loop, asker
from fluvial.loop import WorkflowLoop
from fluvial.replacements import Function, replace_builtin, replace_function
from fluvial.sandbox import refusal

_STEP: Final = "move this into a step"
_READ: Final = "read it when the module is imported, or in a step"
_SLEEP: Final = "await asyncio.sleep or fluvial.sleep"
_WAIT: Final = "wait with asyncio's Event, Lock, Queue or Condition; other work belongs into a step"

_ALWAYS: Final[dict[str, str]] = {
    "_thread.start_joinable_thread": "a thread",
    "_thread.start_new_thread": "a thread",
    "os.exec": "a subprocess",
    "os.fork": "a subprocess",
    "os.forkpty": "a subprocess",
    "os.kill": "a signal to a process",
    "os.killpg": "a signal to a process",
    "os.posix_spawn": "a subprocess",
    "os.spawn": "a subprocess",
    "os.system": "a subprocess",
    "signal.pthread_kill": "a signal to a thread",
    "socket.__new__": "a socket",
    "socket.bind": "a socket",
    "socket.connect": "a socket",
    "socket.getaddrinfo": "the network",
    "socket.gethostbyaddr": "the network",
    "socket.gethostbyname": "the network",
    "socket.getnameinfo": "the network",
    "socket.sendmsg": "a socket",
    "socket.sendto": "a socket",
    "subprocess.Popen": "a subprocess",
}
_BUT_FOR_LOGGING: Final[dict[str, str]] = {
    "os.chmod": "a change of a file",
    "os.chown": "a change of a file",
    "os.link": "a change of a folder",
    "os.mkdir": "a change of a folder",
    "os.remove": "a change of a folder",
    "os.rename": "a change of a folder",
    "os.rmdir": "a change of a folder",
    "os.symlink": "a change of a folder",
    "os.truncate": "a change of a file",
    "os.utime": "a change of a file",
}
_BY_THE_USER: Final[dict[str, tuple[str, str]]] = {
    "os.chdir": ("a change of the working directory", _STEP),
    "os.listdir": ("the file system", _READ),
    "os.putenv": ("a change of the environment", "set it in the deployment's environment"),
    "os.scandir": ("the file system", _READ),
    "os.unsetenv": ("a change of the environment", "set it in the deployment's environment"),
    "socket.gethostname": ("the host's name", _STEP),
}
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REPLACED: Final[tuple[tuple[Any, str, str, str], ...]] = (
    (time, "sleep", "time.sleep", _SLEEP),
    (_thread, "start_new_thread", "a thread", _STEP),
    (threading.Thread, "start", "a thread", _STEP),
    (threading.Thread, "join", "a wait for a thread", _WAIT),
    (threading.Condition, "wait", "a wait for another thread", _WAIT),
    (ThreadPoolExecutor, "submit", "a thread", _STEP),
    (asyncio, "run", "asyncio.run", "await the coroutine: a loop runs here already"),
    (asyncio, "new_event_loop", "another event loop", "await the coroutine"),
    (asyncio.events, "new_event_loop", "another event loop", "await the coroutine"),
    (asyncio, "run_coroutine_threadsafe", "another event loop", _STEP),
    (select, "select", "select", _STEP),
    (select, "poll", "select", _STEP),
    (import_module("_posixsubprocess"), "fork_exec", "a subprocess", _STEP),
)
_SIGNALS: Final = (
    "alarm", "pause", "pthread_sigmask", "raise_signal", "set_wakeup_fd", "setitimer", "signal",
    "sigtimedwait", "sigwait", "sigwaitinfo",
)  # fmt: skip


def install() -> None:
    """Put the refusals up. An audit hook cannot be taken away again: call it once."""
    sys.addaudithook(_audit)
    for owner, name, what, instead in _REPLACED:
        _replace(owner, name, what, instead)
    for name in _SIGNALS:
        _replace(signal, name, f"signal.{name}", "a workflow has no process of its own")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    judge = _JUDGES.get(event)
    if (
        judge is not None
        and type(_get_running_loop()) is WorkflowLoop
        and acting_loop() is not None
    ):
        judge(event, arguments)


def _refuse_always(event: str, _: tuple[Any, ...]) -> None:
    raise refusal(_ALWAYS[event], _STEP)


def _refuse_but_for_logging(event: str, _: tuple[Any, ...]) -> None:
    if asker() != "logging":
        raise refusal(_BUT_FOR_LOGGING[event], _STEP)


def _refuse_to_the_user(event: str, _: tuple[Any, ...]) -> None:
    if asker() == USER:
        raise refusal(*_BY_THE_USER[event])


def _refuse_open(_: str, arguments: tuple[Any, ...]) -> None:
    path, _, flags = arguments
    if isinstance(path, int):
        return  # a descriptor: whoever opened it was asked
    if isinstance(flags, int) and flags & _WRITING:
        if asker() != "logging":
            raise refusal("a file opened for writing", _STEP)
    elif asker() == USER and not _is_time_zone(path):
        raise refusal("a file", _READ)


def _is_time_zone(path: Any) -> bool:
    """Whether `zoneinfo` may be reading; it is written in C and shows no frame of its own."""
    folders: tuple[str, ...] = getattr(sys.modules.get("zoneinfo"), "TZPATH", ())
    return isinstance(path, str) and path.startswith(tuple(f"{folder}/" for folder in folders))


def _refuse_database(_: str, arguments: tuple[Any, ...]) -> None:
    if arguments[0] not in {":memory:", b":memory:"}:
        raise refusal("a database", _STEP)


def _refuse_input(_: str, __: tuple[Any, ...]) -> None:
    raise refusal("input()", "take it as the workflow's argument, or wait for it with a Hook")


_JUDGES: Final[dict[str, Callable[[str, tuple[Any, ...]], None]]] = {
    **dict.fromkeys(_ALWAYS, _refuse_always),
    **dict.fromkeys(_BUT_FOR_LOGGING, _refuse_but_for_logging),
    **dict.fromkeys(_BY_THE_USER, _refuse_to_the_user),
    "builtins.input": _refuse_input,
    "open": _refuse_open,
    "sqlite3.connect": _refuse_database,
}


def _replace(owner: Any, name: str, what: str, instead: str) -> None:
    def check(arguments: tuple[Any, ...]) -> None:
        if acting_loop() is None:
            return
        for argument in arguments:
            if inspect.iscoroutine(argument):
                argument.close()  # nobody will await it, and Python would warn of that
        raise refusal(what, instead)

    def make_function(real: Function) -> Function:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            if type(_get_running_loop()) is WorkflowLoop:
                check(args)
            return real(*args, **kwargs)

        return refuse

    def make_builtin(real: Function) -> Function:
        refuse = make_function(real)

        def refuse_builtin(_home: object, /, *args: Any, **kwargs: Any) -> Any:
            return refuse(*args, **kwargs)

        return refuse_builtin

    if isinstance(getattr(owner, name, None), BuiltinFunctionType):
        replace_builtin(owner, name, make_builtin)
    else:
        replace_function(owner, name, make_function)
