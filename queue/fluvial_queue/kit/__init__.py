"""The engine of the test kit: sequencers, a store and instances in one process, in virtual time.

`fluvial.testing` finds `open_engine` as an entry point; the project's own campaigns use the parts.
"""

from fluvial_queue.kit.clock import VirtualClock
from fluvial_queue.kit.decisions import Decisions, InOrder, Seeded
from fluvial_queue.kit.driver import Driver, open_engine
from fluvial_queue.kit.engine import Engine

__all__ = [
    "Decisions",
    "Driver",
    "Engine",
    "InOrder",
    "Seeded",
    "VirtualClock",
    "open_engine",
]
