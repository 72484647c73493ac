"""How much memory is provisioned, for how long: what a bill counts beside active CPU.

An instance counts while it has at least one invocation in flight, with the memory that its manifest
asks for, once for all of its invocations (as Fluid compute bills it). Idle instances cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fluvial_gateway.instances import Instance


@dataclass(frozen=True, slots=True)
class Occupied:
    """What one app occupies on this gateway's instances."""

    in_flight: int  # invocations with an instance, now
    byte_seconds: float  # since the gateway started
    memory_bytes: int  # of one instance


class Occupancy:
    """Adds up, per app, what the instances of its pools were busy for."""

    def __init__(self) -> None:
        self.on_busy: Callable[[], None] = _nobody  # an instance has something to do
        self._byte_seconds: dict[str, float] = {}
        self._memory_bytes: dict[str, int] = {}

    def enter(self, instance: Instance, now: float) -> None:
        """An invocation takes a place of the instance."""
        if instance.in_flight == 0:
            instance.busy_since = now
            self.on_busy()
        instance.in_flight += 1

    def leave(self, app: str, memory_bytes: int, instance: Instance, now: float) -> None:
        """An invocation gives its place back."""
        instance.in_flight -= 1
        if instance.in_flight == 0:
            done = (now - instance.busy_since) * memory_bytes
            self._byte_seconds[app] = self._byte_seconds.get(app, 0.0) + done
            self._memory_bytes[app] = memory_bytes

    def read(self, living: Iterable[tuple[str, int, Instance]], now: float) -> dict[str, Occupied]:
        """Return what each app occupies, given the living instances with app and memory."""
        in_flight: dict[str, int] = dict.fromkeys(self._byte_seconds, 0)
        total, memory = dict(self._byte_seconds), dict(self._memory_bytes)
        for app, memory_bytes, instance in living:
            in_flight[app] = in_flight.get(app, 0) + instance.in_flight
            memory[app] = memory_bytes
            if instance.in_flight:
                busy = (now - instance.busy_since) * memory_bytes
                total[app] = total.get(app, 0.0) + busy
        return {
            app: Occupied(count, total.get(app, 0.0), memory.get(app, 0))
            for app, count in in_flight.items()
        }


def _nobody() -> None:
    """Nobody wants to know."""
