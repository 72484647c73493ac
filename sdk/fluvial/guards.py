"""Guards: what workflow code must not do raises; what it may ask anyway is answered repeatably.

They look at one thing, whether a workflow's loop is running in this thread, and change nothing
anywhere else.

*Refused*, by an audit hook (so aliases are caught too): processes, sockets, files opened for
writing; sleeping and threads by replaced functions as well, as Python 3.11 does not audit them.

*Answered* from the run: `time.time`, `time.time_ns`, `random`'s module-level functions,
`uuid.uuid4`. Only names looked up after `install` see this, so an instance installs the guards
before it imports a bundle. `datetime.now` cannot be replaced without breaking the type: use
`fluvial.now()`.

*Put in order*: `asyncio.as_completed` makes tasks of coroutines in the order of a set of
coroutines, which is that of their addresses.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from fluvial.determinism import uuid4 as repeatable_uuid4
from fluvial.loop import current_loop
from fluvial.sandbox import refusal

_REFUSED: Final[dict[str, tuple[str, str]]] = {
    "time.sleep": ("time.sleep", "await asyncio.sleep or fluvial.sleep"),
    "_thread.start_new_thread": ("a thread", "move this into a step"),
    "_thread.start_joinable_thread": ("a thread", "move this into a step"),
    "subprocess.Popen": ("a subprocess", "move this into a step"),
    "os.system": ("a subprocess", "move this into a step"),
    "os.exec": ("a subprocess", "move this into a step"),
    "os.fork": ("a subprocess", "move this into a step"),
    "os.forkpty": ("a subprocess", "move this into a step"),
    "os.posix_spawn": ("a subprocess", "move this into a step"),
    "os.spawn": ("a subprocess", "move this into a step"),
    "socket.__new__": ("a socket", "move this into a step"),
    "socket.connect": ("a socket", "move this into a step"),
    "socket.bind": ("a socket", "move this into a step"),
    "socket.getaddrinfo": ("the network", "move this into a step"),
    "socket.gethostbyname": ("the network", "move this into a step"),
}
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RANDOM: Final = (
    "betavariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits",
    "lognormvariate", "normalvariate", "paretovariate", "randbytes", "randint", "random",
    "randrange", "sample", "shuffle", "triangular", "uniform", "vonmisesvariate", "weibullvariate",
)  # fmt: skip


@functools.cache  # once per process: an audit hook cannot be taken away again
def install() -> None:
    """Put the guards up; a second call does nothing."""
    sys.addaudithook(_audit)
    time.time = _or_run(time.time, lambda loop: loop.time())
    time.time_ns = _or_run(time.time_ns, lambda loop: round(loop.time() * 1000) * 1_000_000)
    time.sleep = _refusing(time.sleep, "time.sleep")
    threading.Thread.start = _refusing(  # type: ignore[method-assign]
        threading.Thread.start, "_thread.start_new_thread"
    )
    uuid.uuid4 = _or_run(uuid.uuid4, lambda _: repeatable_uuid4())
    for name in _RANDOM:
        setattr(random, name, _repeatable_random(name))
    asyncio.as_completed = asyncio.tasks.as_completed = _ordered(asyncio.as_completed)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        if current_loop() is not None:
            raise refusal(*_REFUSED[event])
    elif event == "open" and current_loop() is not None and _writes(arguments):
        raise refusal("a file opened for writing")


def _writes(arguments: tuple[Any, ...]) -> bool:
    # Reading is let through: late imports, time zones and tracebacks read files.
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & _WRITING)


def _refusing(real: Callable[..., Any], event: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if current_loop() is not None:
            raise refusal(*_REFUSED[event])
        return real(*args, **kwargs)

    return refuse


def _or_run(real: Callable[[], Any], repeatable: Callable[[Any], Any]) -> Callable[[], Any]:
    @functools.wraps(real)
    def ask() -> Any:
        loop = current_loop()
        return real() if loop is None else repeatable(loop)

    return ask


def _ordered(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def as_completed(fs: Iterable[Awaitable[Any]], **options: Any) -> Any:
        if current_loop() is not None:
            fs = [asyncio.ensure_future(each) for each in fs]
        return real(fs, **options)

    return as_completed


def _repeatable_random(name: str) -> Callable[..., Any]:
    real: Callable[..., Any] = getattr(random, name)

    @functools.wraps(real)
    def draw(*args: Any, **kwargs: Any) -> Any:
        loop = current_loop()
        chosen = real if loop is None else getattr(loop.scope.random, name)
        return chosen(*args, **kwargs)

    return draw
