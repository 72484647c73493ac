"""The invoker's side of zygotes: one for each layer that is in use.

A zygote is started when a layer's first instance is wanted; everybody who wants one meanwhile waits
for the same zygote. It is closed when it has no children and room is needed, and it dies with the
invoker. One that reports itself unfit (it has threads) is remembered as such: its layer's instances
are spawned from then on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fluvial_invoker import process_stats
from fluvial_invoker.forkers import Forker
from fluvial_invoker.processes import Process

MAX_IDLE_ZYGOTES: Final = 4  # 20 to 60 MiB each
START_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class Zygote(Forker):
    """One zygote process."""

    def __init__(
        self,
        layer: str,
        uid: int | None,
        *,
        on_child_exit: Callable[[int, int], None],
        on_exit: Callable[[], None],
    ) -> None:
        super().__init__(on_child_exit=on_child_exit)
        self.layer = layer
        self.place = (layer, uid)
        self._on_exit = on_exit
        self._process: Process | None = None

    def start(self, runtime_path: Path, layer_path: str) -> None:
        """Start the process; `wait_until_ready` tells how it went."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            arguments = ("zygote", str(runtime_path), layer_path, str(fd), str(os.getpid()))
            self._process = Process(arguments, fds=(fd,), on_exit=self.ended, uid=self.place[1])
        self.attach(self._process.pid, ours)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()

    def ended(self, exit_code: int) -> None:
        _log.info("zygote ended", extra={"zygote": self.pid, "exit_code": exit_code})
        super().ended(exit_code)
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
        return [
            {
                "layer": layer,
                "pid": each.pid,
                "rss_bytes": process_stats.rss_bytes(each.pid),
                "children": len(each.children),
            }
            for (layer, _), each in self._by_layer.items()
        ]

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
        self._gone.set()
