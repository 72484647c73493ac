"""What the watchdog measures, and what is too much of it.

The thresholds are about neighbours: an instance with nothing in flight takes an invocation whatever
it measures, since one that is refused everywhere would never be served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LAG: Final = "lag"
CPU: Final = "cpu"
MEMORY: Final = "memory"
DESCRIPTORS: Final = "descriptors"
THREADS: Final = "threads"

MAX_LAG_SECONDS: Final = 0.05
# A loop that is always busy but turns quickly keeps nobody waiting, and loses from being spared.
BUSY_LAG_SECONDS: Final = 0.01
MAX_CPU_SHARE: Final = 0.9
MAX_MEMORY_SHARE: Final = 0.85
MAX_DESCRIPTOR_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state of an instance at one moment; shares are of 1."""

    in_flight: int
    limit: int  # how many it takes at once, as measured
    lag_seconds: float = 0.0  # how late the event loop is, without time for which it had no core
    cpu_share: float = 0.0  # of one core, since the sample before
    memory_share: float = 0.0
    descriptor_share: float = 0.0
    waiting_for_thread: int = 0  # blocking calls that no thread has begun, now and a sample ago

    def to_fields(self) -> list[int]:
        """Return what frames carry: counts, microseconds, thousandths."""
        return [
            self.limit,
            self.in_flight,
            int(self.lag_seconds * 1e6),
            int(self.cpu_share * 1000),
            int(self.memory_share * 1000),
            int(self.descriptor_share * 1000),
            self.waiting_for_thread,
        ]


def trouble_of(sample: Sample) -> str:
    """Return why nothing more should start beside what is in flight; empty: nothing is wrong."""
    if sample.lag_seconds > MAX_LAG_SECONDS:
        return LAG
    is_late = sample.lag_seconds > BUSY_LAG_SECONDS
    if sample.cpu_share > MAX_CPU_SHARE and is_late and sample.in_flight > 1:
        return CPU
    if sample.memory_share > MAX_MEMORY_SHARE:
        return MEMORY
    if sample.descriptor_share > MAX_DESCRIPTOR_SHARE:
        return DESCRIPTORS
    if sample.waiting_for_thread > 0:
        return THREADS
    return ""
