"""What a sequencer needs of its owner: the dispatcher, the test kit, or a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fluvial.events import Event
from fluvial_queue.contract import CommitEntry
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message
from fluvial_queue.views import RunView


class Port(Protocol):
    """What a sequencer asks of its owner; every method returns at once."""

    def now_ms(self) -> int:
        """The store's time, as far as is known."""
        ...

    def dispatch(self, job: Job) -> None:
        """Invoke it; report by `answered`, `lost` or `unavailable`, once."""
        ...

    def cancel(self, job: Job, reason: str) -> None:
        """Stop an invocation whose answer is not wanted any more."""
        ...

    def load(self, run_id: str, *, again: bool) -> None:
        """Read the run; if `again`, also which of its messages exist; report by `loaded`."""
        ...

    def claim(self, view: RunView, tokens: Sequence[str], job: Job) -> None:
        """Claim user-chosen hook tokens; report by `claimed`."""
        ...

    def carry_out(self, view: RunView, message_id: str, effect: Message) -> None:
        """Do what an effect asks for in another run; report by `carried_out`, or, later, by
        `too_early`."""
        ...

    def commit(self, entry: CommitEntry) -> None:
        """Commit it, repeating until the answer is definite; report by `committed`."""
        ...

    def recorded(self, view: RunView, event: Event) -> None:
        """An event is now in a run's log; `view` is still as it was before it."""
        ...
