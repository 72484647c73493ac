"""How many invocations an instance takes at once, as measured.

It begins at what the deployment allows at most. Trouble that comes again within ten samples halves
it (once may be an import, or a collection of garbage); each calm sample in which it was reached
gives half of it back, as long as invocations do not take longer for it. How long they take is known
without timing any: by Little's law it is the mean number in flight divided by the rate of their
ends.
"""

from __future__ import annotations

from typing import Final

_DECREASE: Final = 0.5
_INCREASE: Final = 0.5
_FORGIVEN_AFTER: Final = 10  # calm samples
_REACHED: Final = 0.8  # of the limit: fewer in flight say nothing about more
_MAX_GRADIENT: Final = 1.5  # recent latency over the usual one, above which more only wait longer
_RECENT_WEIGHT: Final = 0.3
_USUAL_WEIGHT: Final = 0.03


class AdaptiveLimit:
    """One instance's limit; `now` is between 1 and `most`."""

    __slots__ = ("_calm_samples", "_recent", "_usual", "most", "now")

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most
        self._calm_samples = _FORGIVEN_AFTER
        self._recent = 0.0
        self._usual = 0.0

    def trouble(self, in_flight: int) -> None:
        """A sample was bad, with so many in flight."""
        if self._calm_samples < _FORGIVEN_AFTER:
            self.now = max(1, int(min(self.now, in_flight) * _DECREASE))
        self._calm_samples = 0

    def calm(self, in_flight: int, ended: int, seconds: float) -> None:
        """A sample was good; `ended` invocations did so in the `seconds` before it."""
        self._calm_samples += 1
        self._learn(in_flight, ended, seconds)
        is_reached = in_flight >= _REACHED * self.now
        is_slower = self._recent > _MAX_GRADIENT * self._usual
        if self.now < self.most and is_reached and not is_slower:
            self.now = min(self.most, self.now + 1 + int(self.now * _INCREASE))

    def _learn(self, in_flight: int, ended: int, seconds: float) -> None:
        if not ended or not in_flight:
            return
        latency = in_flight * seconds / ended
        if not self._usual:
            self._recent = self._usual = latency
            return
        self._recent += _RECENT_WEIGHT * (latency - self._recent)
        self._usual += _USUAL_WEIGHT * (latency - self._usual)
