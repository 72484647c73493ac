"""The invoker's side of a process that can be forked: its channel, its children, its end.

What such a process says is a stranger's word (it has imported what somebody deployed): a message
that makes no sense ends it, and it can only name its own children.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from fluvial.errors import FluvialError
from fluvial_invoker import process_stats
from fluvial_invoker.instance.zygote_messages import (
    MAX_MESSAGE_BYTES,
    MAX_WHY_CHARACTERS,
    ZygoteMessage,
)

FORK_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class UnfitError(FluvialError):
    """A process cannot be forked; the instance must be started otherwise."""

    code = "zygote_unfit"


class NotReadyError(UnfitError):
    """A snapshot was looked at and found unsafe; `stage` is how far it had come."""

    code = "snapshot_not_ready"

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(f"{stage}: {why}")
        self.stage = stage


class Forker(ABC):
    """A process that forks instances on demand."""

    def __init__(self, *, on_child_exit: Callable[[int, int], None]) -> None:
        self.children: set[int] = set()
        self.is_unfit = False
        self.pid = 0
        self._on_child_exit = on_child_exit
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel: socket.socket | None = None

    @abstractmethod
    def close(self) -> None:
        """End the process, and with it all its children."""

    def attach(self, pid: int, channel: socket.socket) -> None:
        """The process exists, and `channel` leads to it."""
        self.pid = pid
        channel.setblocking(False)
        self._channel = channel
        asyncio.get_running_loop().add_reader(channel.fileno(), self._read)

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait until it can be forked.

        Raises:
            UnfitError: it has ended, or takes too long, and is ended for that.
        """
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self.close()
            raise UnfitError(f"not ready after {seconds:g} s") from None

    async def fork(self, fds: Sequence[int]) -> int:
        """Fork a child that gets copies of `fds` (listener, log, control); return its pid.

        Raises:
            UnfitError: it must not be forked, or it has ended.
        """
        if self._channel is None or self.is_unfit:
            raise UnfitError("it is unfit or has ended")
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = msgpack.packb((int(ZygoteMessage.FORK), number))
        try:
            socket.send_fds(self._channel, [message], fds)
            async with asyncio.timeout(FORK_SECONDS):
                pid: int = await answer
        except BlockingIOError as error:
            raise UnfitError("too many requests are waiting") from error
        except (OSError, TimeoutError) as error:
            # After a timeout it is unknown whether there is a child: closing ends both.
            self.close()
            raise UnfitError(f"it does not answer: {type(error).__name__}") from error
        finally:
            del self._answers[number]
        return pid

    def ended(self, exit_code: int) -> None:
        """The process is gone, and so are its children: the kernel's doing."""
        error = UnfitError(f"it ended with {exit_code}")
        if self._channel is not None:
            self._read()  # what it said last: its children's ends
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        self._not_ready(error)
        for pid in list(self.children):
            self._child_ended(pid, -signal.SIGKILL)

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
                _log.error("a zygote talks nonsense", extra={"zygote": self.pid, "error": error})
                self.close()

    def _message(self, message: list[Any]) -> None:
        match message:
            case [ZygoteMessage.READY, int(), imported]:
                _log.info("zygote ready", extra={"zygote": self.pid, "imported": imported})
                if not self._ready.done():
                    self._ready.set_result(None)
            case [ZygoteMessage.NOT_READY, str(stage), str(why)]:
                self._not_ready(NotReadyError(stage[:20], why[:MAX_WHY_CHARACTERS]))
            case [ZygoteMessage.FORKED, int(number), int(pid)] if self._may_be_child(pid):
                self.children.add(pid)
                if number in self._answers:
                    self._answers[number].set_result(pid)
            case [ZygoteMessage.UNFIT, int(number), str(why)]:
                self.is_unfit = True
                if number in self._answers:
                    self._answers[number].set_exception(UnfitError(why))
            case [ZygoteMessage.DIED, pid, int(exit_code)] if pid in self.children:
                self._child_ended(pid, exit_code)
            case _:
                _log.error("unknown message of a zygote", extra={"zygote": self.pid})
                self.close()

    def _child_ended(self, pid: int, exit_code: int) -> None:
        self.children.discard(pid)
        self._on_child_exit(pid, exit_code)

    def _not_ready(self, error: UnfitError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # seen: maybe nobody waits

    def _may_be_child(self, pid: int) -> bool:
        """Whether the process is the zygote's own: it must not name others for us to kill."""
        parent = process_stats.parent_pid(pid)
        return pid > 0 and parent in (None, self.pid)  # None: it has ended already
