"""`patched`: intended changes of a workflow's code, which runs under way take or leave for good.

A patch is a fact about a run, not an operation: it has no number and nobody waits for it.

*   Asked for the first time by code that does something new, it is taken, and a PATCHED event goes
    into the log at that place. Asked for the first time by a replay, the run has passed this point
    without it: it is left, unless the log has the event.
*   The answer holds for the rest of the run, wherever else it is asked.
*   A replay does not compare PATCHED events with what is asked now, so a patch may be removed from
    the code once every run is to be on its path.
"""

from __future__ import annotations

from typing import Any, Final

from fluvial.errors import InvalidRequestError
from fluvial.events import EventType
from fluvial.journal import Operation
from fluvial.loop import current_loop

MAX_PATCH_CHARACTERS: Final = 256


class PatchTaken(Operation):
    """The event of a patch; it opens nothing."""

    __slots__ = ("patch",)
    closes = EventType.PATCHED

    def __init__(self, patch: str) -> None:
        super().__init__()
        self.patch = patch

    def closing_meta(self) -> dict[str, Any]:
        return {"patch": self.patch}


def patched(patch: str) -> bool:
    """Whether this run takes the new path of an intended change; `patch` names the change.

        if patched("charge-before-shipping"):
            ...
        else:
            ...

    True in new runs, and in older ones that have not come by here before; False in a run that is
    replayed past this point on code from before the change. True outside workflows.

    Raises:
        InvalidRequestError: the name is empty or too long.
    """
    if not 1 <= len(patch) <= MAX_PATCH_CHARACTERS:
        raise InvalidRequestError(
            f"a patch's name must have 1 to {MAX_PATCH_CHARACTERS} characters"
        )
    loop = current_loop()
    if loop is None:
        return True
    journal = loop.journal
    taken = journal.patches.get(patch)
    if taken is None:
        taken = journal.patches[patch] = not journal.is_replaying
        if taken:
            journal.note(PatchTaken(patch))
    return taken
