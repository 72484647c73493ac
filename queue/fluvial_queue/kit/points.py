"""The durable points of a schedule, and the fault that shall happen at one of them."""

from __future__ import annotations

from collections.abc import Callable

from fluvial.testing.engines import FAULTS_AT, Fault, PlannedFault, Point, PointKind


class Points:
    """Counts the points that are passed."""

    def __init__(self, planned: PlannedFault | None = None) -> None:
        self.passed: list[Point] = []
        self.was_hit = False
        self.is_counting = True  # where nobody looks at them, naming them is not worth the time
        self._planned = planned

    def at(self, kind: PointKind, what: Callable[[], str]) -> Fault | None:
        """Pass a point; return the fault that shall happen here."""
        if not self.is_counting:
            return None
        point = Point(len(self.passed) + 1, kind, what())
        self.passed.append(point)
        planned = self._planned
        if planned is None or planned.point != point.number:
            return None
        if planned.fault not in FAULTS_AT[kind]:
            return None
        self.was_hit = True
        return planned.fault
