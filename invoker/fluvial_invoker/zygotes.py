"""The invoker's side of zygotes: one for each layer that is in use.

A zygote is started when a layer's first instance is wanted; everybody who wants one meanwhile waits
for the same zygote. It is closed when it has no children and room is needed, and it dies with the
invoker. One that reports itself unfit (it has threads) is remembered as such: its layer's instances
are spawned from then on.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack

from fluvial.errors import FluvialError
from fluvial_invoker import process_stats
from fluvial_invoker.instance.zygote_messages import MAX_MESSAGE_BYTES, ZygoteMessage
from fluvial_invoker.processes import Process

MAX_IDLE_ZYGOTES: Final = 4  # 20 to 60 MiB each
_START_SECONDS: Final = 60.0
_FORK_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class UnfitError(FluvialError):
    """A zygote cannot be forked; the instance must be spawned."""

    code = "zygote_unfit"


class Zygote:
    """One zygote process."""

    def __init__(
        self,
        layer: str,
        uid: int | None,
        *,
        on_child_exit: Callable[[int, int], None],
        on_exit: Callable[[], None],
    ) -> None:
        self.layer = layer
        self.place = (layer, uid)
        self.children: set[int] = set()
        self.is_unfit = False
        self.pid = 0
        self._on_child_exit = on_child_exit
        self._on_exit = on_exit
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process: Process | None = None
        self._channel: socket.socket | None = None

    def start(self, runtime_path: Path, layer_path: str) -> None:
        """Start the process; `wait_until_ready` tells how it went."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            fd = theirs.fileno()
            arguments = ("zygote", str(runtime_path), layer_path, str(fd), str(os.getpid()))
            self._process = Process(arguments, fds=(fd,), on_exit=self._exited, uid=self.place[1])
        self.pid = self._process.pid
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def wait_until_ready(self) -> None:
        """Wait until it can be forked.

        Raises:
            UnfitError: it has ended, or takes too long.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self.close()
            raise UnfitError(f"no zygote after {_START_SECONDS:g} s") from None

    async def fork(self, fds: Sequence[int]) -> int:
        """Fork an instance that gets copies of `fds` (listener, log, control); return its pid.

        Raises:
            UnfitError: it must not be forked, or it has ended.
        """
        if self._channel is None or self.is_unfit:
            raise UnfitError("the zygote is unfit or has ended")
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = msgpack.packb((int(ZygoteMessage.FORK), number))
        try:
            socket.send_fds(self._channel, [message], fds)
            async with asyncio.timeout(_FORK_SECONDS):
                pid: int = await answer
        except BlockingIOError as error:
            raise UnfitError("the zygote has too many requests waiting") from error
        except (OSError, TimeoutError) as error:
            # After a timeout it is unknown whether there is a child: closing ends both.
            self.close()
            raise UnfitError(f"the zygote does not answer: {type(error).__name__}") from error
        finally:
            del self._answers[number]
        return pid

    def close(self) -> None:
        """End the zygote, and with it all its children."""
        if self._process is not None:
            self._process.kill()

    def _read(self) -> None:
        assert self._channel is not None
        while True:
            try:
                data = self._channel.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                return
            try:
                self._message(msgpack.unpackb(data))
            except (ValueError, TypeError) as error:
                # It has imported a layer, and that is a stranger's code.
                _log.error("a zygote talks nonsense", extra={"zygote": self.pid, "error": error})
                self.close()

    def _message(self, message: list[Any]) -> None:
        match message:
            case [ZygoteMessage.READY, int(pid), imported]:
                _log.info("zygote ready", extra={"zygote": pid, "imported": imported})
                if not self._ready.done():
                    self._ready.set_result(None)
            case [ZygoteMessage.FORKED, int(number), int(pid)] if self._may_be_child(pid):
                self.children.add(pid)
                if number in self._answers:
                    self._answers[number].set_result(pid)
            case [ZygoteMessage.UNFIT, int(number), str(why)]:
                self.is_unfit = True
                if number in self._answers:
                    self._answers[number].set_exception(UnfitError(why))
            case [ZygoteMessage.DIED, pid, int(exit_code)] if pid in self.children:
                self.children.discard(pid)
                self._on_child_exit(pid, exit_code)
            case _:
                _log.error("unknown message of a zygote", extra={"zygote": self.pid})
                self.close()

    def _may_be_child(self, pid: int) -> bool:
        """Whether the process is the zygote's own: it must not name others for us to kill."""
        parent = process_stats.parent_pid(pid)
        return pid > 0 and parent in (None, self.pid)  # None: it has ended already

    def _exited(self, exit_code: int) -> None:
        _log.info("zygote ended", extra={"zygote": self.pid, "exit_code": exit_code})
        if self._channel is not None:
            self._read()  # what it said last: its children's ends
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        error = UnfitError(f"the zygote ended with {exit_code}")
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # seen: maybe nobody waits
        self._on_exit()


class Zygotes:
    """All zygotes, by layer."""

    def __init__(self, runtime_path: Path, on_child_exit: Callable[[int, int], None]) -> None:
        self._runtime_path = runtime_path
        self._on_child_exit = on_child_exit
        self._by_layer: dict[tuple[str, int | None], Zygote] = {}
        self._gone = asyncio.Event()

    def of(self, layer: str, layer_path: str, uid: int | None = None) -> Zygote:
        """Return the layer's zygote, started now if there is none.

        One with a layer imports what a stranger has chosen, so it runs as `uid`, and other users
        have others. The one without imports the platform alone: it serves all, and its children
        change to their users themselves.
        """
        place = (layer, uid if layer else None)
        zygote = self._by_layer.pop(place, None)
        if zygote is None:
            self._make_room()
            zygote = self._start(layer, layer_path, place[1])
        self._by_layer[place] = zygote  # at the end: the first ones are the least recently used
        return zygote

    def survey(self) -> list[dict[str, Any]]:
        """Return what SURVEYED says about zygotes."""
        return [{"layer": layer, "pid": each.pid} for (layer, _), each in self._by_layer.items()]

    def close(self) -> None:
        """End all of them."""
        for zygote in self._by_layer.values():
            zygote.close()

    async def wait_until_closed(self) -> None:
        """Wait until none is left."""
        while self._by_layer:
            self._gone.clear()
            await self._gone.wait()

    def _start(self, layer: str, layer_path: str, uid: int | None) -> Zygote:
        zygote = Zygote(
            layer,
            uid,
            on_child_exit=self._on_child_exit,
            on_exit=lambda: self._exited(zygote),
        )
        zygote.start(self._runtime_path, layer_path)
        return zygote

    def _make_room(self) -> None:
        idle = [zygote for zygote in self._by_layer.values() if not zygote.children]
        for zygote in idle[: max(0, len(idle) - MAX_IDLE_ZYGOTES + 1)]:
            del self._by_layer[zygote.place]
            zygote.close()

    def _exited(self, zygote: Zygote) -> None:
        if self._by_layer.get(zygote.place) is zygote:
            del self._by_layer[zygote.place]
        for pid in list(zygote.children):
            self._on_child_exit(pid, -signal.SIGKILL)  # the kernel's doing: they die with it
        self._gone.set()
