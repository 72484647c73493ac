"""How a process comes to be that begins with a birth certificate: an instance, or a snapshot.

It is forked from the zygote of its deployment's layer, or spawned where the layer cannot be forked.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluvial_invoker.forkers import Forker, UnfitError
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.layers import conflicts
from fluvial_invoker.processes import Process
from fluvial_invoker.zygotes import START_SECONDS, Zygotes

Tier = Literal["snapshot", "zygote", "spawn"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that exists, or has existed: `Starter.watch` tells of its end."""

    pid: int
    tier: Tier
    phases_ms: dict[str, float]


class Starter:
    """Creates processes, and tells of their ends."""

    def __init__(self, runtime_path: Path) -> None:
        self._runtime_path = runtime_path
        self._zygotes = Zygotes(runtime_path, self.child_ended)
        self._watched: dict[int, Callable[[int], None]] = {}
        self._early_ends: dict[int, int] = {}

    @property
    def zygotes(self) -> Zygotes:
        """Those of layers."""
        return self._zygotes

    async def start(self, certificate: BirthCertificate, fds: Sequence[int]) -> Started:
        """Create a process that gets copies of `fds`: fork the layer's zygote, else spawn.

        Raises:
            UnfitError: it is to be in a jail, and there is no zygote to fork.
        """
        spec = certificate.deployment
        different = find_conflicts(certificate.layer_path) if certificate.layer_path else ()
        if different:
            _log.info(
                "the layer conflicts with the platform's packages: no fork",
                extra={"deployment": spec.deployment, "conflicts": different},
            )
        else:
            try:
                return await self._fork_layer(certificate, fds)
            except UnfitError as error:
                if spec.instance.isolation == "jail":
                    raise  # an interpreter that is spawned has the layer before it has the jail
                _log.warning("no fork", extra={"layer": spec.layer, "reason": str(error)})
        return self._spawn(certificate, fds)

    async def fork(self, forker: Forker, tier: Tier, fds: Sequence[int]) -> Started:
        """Create a process by a fork of this one.

        Raises:
            UnfitError: it cannot be forked.
        """
        began = time.monotonic()
        pid = await forker.fork(fds)
        return Started(pid=pid, tier=tier, phases_ms={"fork": _ms(began, time.monotonic())})

    def watch(self, pid: int, on_exit: Callable[[int], None]) -> None:
        """Call `on_exit(exit code)` when the process has ended: now, if it has already."""
        self._watched[pid] = on_exit
        if pid in self._early_ends:
            self.child_ended(pid, self._early_ends.pop(pid))

    def child_ended(self, pid: int, exit_code: int) -> None:
        """A process has ended; whoever forked it says so."""
        on_exit = self._watched.pop(pid, None)
        if on_exit is None:
            # Its zygote told of the end in the same breath as of the fork.
            self._early_ends[pid] = exit_code
        else:
            on_exit(exit_code)

    async def close(self) -> None:
        """End the zygotes."""
        self._zygotes.close()
        await self._zygotes.wait_until_closed()

    async def _fork_layer(self, certificate: BirthCertificate, fds: Sequence[int]) -> Started:
        began = time.monotonic()
        spec = certificate.deployment
        layer = (spec.layer, certificate.layer_path)
        if spec.instance.isolation == "jail":
            layer = ("", "")  # what it brings is imported in the jail, and by nobody before
        zygote = self._zygotes.of(*layer, certificate.uid)
        await zygote.wait_until_ready(START_SECONDS)
        waited_ms = _ms(began, time.monotonic())
        started = await self.fork(zygote, "zygote", fds)
        started.phases_ms["zygote"] = waited_ms
        return started

    def _spawn(self, certificate: BirthCertificate, fds: Sequence[int]) -> Started:
        began = time.monotonic()
        arguments = ("spawned", str(self._runtime_path), certificate.layer_path)
        process: Process = Process(
            (*arguments, *map(str, fds), str(os.getpid())),
            fds=fds,
            on_exit=lambda exit_code: self.child_ended(process.pid, exit_code),
            uid=certificate.uid,
        )
        phases = {"spawn": _ms(began, time.monotonic())}
        return Started(pid=process.pid, tier="spawn", phases_ms=phases)


def _ms(began: float, ended: float) -> float:
    return round((ended - began) * 1000, 2)


@functools.lru_cache(maxsize=256)  # a layer's folder never changes
def find_conflicts(layer: str) -> tuple[str, ...]:
    """Return the packages of a layer that keep it from being forked."""
    return conflicts(Path(layer))
