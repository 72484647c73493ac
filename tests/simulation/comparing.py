"""One trace, played with each policy in a park of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fluvial_gateway.pool_contract import PoolLimits
from tests.simulation.policies import Fixed, Knative, Measured
from tests.simulation.traces import Request
from tests.simulation.world import Park, Policy, Report

POLICIES: Final[dict[str, Callable[[], Policy]]] = {
    # The others queue without a bound; so that all serve the same requests, so does ours here.
    "measured": lambda: Measured(limits=PoolLimits(queue_length=10**9)),
    "fixed 1": lambda: Fixed(1),
    "fixed 100": lambda: Fixed(100),
    "Knative 10": lambda: Knative(10),
    "Knative 100": lambda: Knative(100),
}


def compare(trace: list[Request], *, cold_seconds: float, most: int) -> dict[str, Report]:
    """Return what each policy did."""
    return {
        name: Park(policy(), cold_seconds=cold_seconds, most=most).play(trace)
        for name, policy in POLICIES.items()
    }
