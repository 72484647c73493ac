"""Auditing a replay: comparing also the values that it asks for with the recorded ones.

A replay compares names and order, which is what keeps a run whole. That another deployment's code
calls a step with other arguments, or returns something else, harms no run that goes on; whoever is
about to move runs may still want to know. (On its own deployment a run's arguments must be the
same: see `fluvial.replays`.) An `Auditor` opens what was recorded and tells the differences,
without the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fluvial.checks import MAX_WARNINGS
from fluvial.codec import are_equal
from fluvial.divergence import Witness
from fluvial.events import EventType
from fluvial.journal import Operation, Recorded, describe

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys


class Auditor(Witness):
    """A journal of a replay that opens recorded values.

    `sealed` maps the ids of steps to their recorded arguments, and 0 to the run's result.
    """

    __slots__ = ("_keys_of_run", "_sealed", "warnings")

    def __init__(
        self,
        keys: RunKeys,
        recorded: Sequence[Recorded],
        patches: Sequence[str],
        sealed: Mapping[int, bytes],
    ) -> None:
        super().__init__(keys, recorded, patches)
        self._keys_of_run = keys
        self._sealed = sealed
        self.warnings: list[str] = []

    def put_opening(self, operation: Operation) -> None:
        plaintext, place = operation.take_plaintext(), self.place_of(operation)
        super().put_opening(operation)
        sealed = self._sealed.get(operation.id) if operation.is_numbered else None
        if sealed is None or plaintext is None:
            return
        if not are_equal(plaintext, operation.unseal(self._keys_of_run, sealed)):
            where = "" if place is None else f" at {place}"
            what = describe(operation.opens, operation.id, operation.opening_meta())
            self._warn(f"{what}{where}: called with other arguments than recorded")

    def match_last(
        self, event_type: EventType, error: BaseException | None, plaintext: bytes | None
    ) -> None:
        super().match_last(event_type, error, plaintext)
        sealed = self._sealed.get(0)
        if event_type is not EventType.RUN_COMPLETED or sealed is None or plaintext is None:
            return
        if not are_equal(plaintext, self._keys_of_run.open(sealed, "result")):
            self._warn("RUN_COMPLETED: returns something else than recorded")

    def _warn(self, text: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
