"""The port behind the test kit: what runs the workflows of a test, and how it is found.

The SDK holds what users touch. What executes is an *engine*: a store in memory, the sequencer and
two instances in this process, on a virtual clock. It comes from the server packages, which the SDK
must not import, so it is looked up as the entry point `engine` of the group `fluvial.testing`.

The platform that an engine serves waits by itself: a call that waits for a run (its result, its
events) lets the runs go on until then, and raises `StuckError` where nothing can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from fluvial.events import Event
from fluvial.ports import Platform
from fluvial.testing.errors import EngineNotFoundError

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.registry import Registry
    from fluvial.threads import Threads

GROUP: Final = "fluvial.testing"
NAME: Final = "engine"

Mode = Literal["live", "replay", "evict"]
"""How turns continue: with the suspended coroutine where it lives; always from the event log; or
with a coroutine that is dropped after every turn, so that the log has to be asked for."""

PointKind = Literal["dispatch", "answer", "commit"]
Fault = Literal["crash", "duplicate", "lost_answer", "lost_reply"]
"""What can go wrong at a durable point:

crash        everything in memory is lost: the partitions' owner, and all instances
duplicate    another owner takes over while the invocation runs, and invokes the same once more
lost_answer  the invocation was executed, and nobody hears of it
lost_reply   the commit was applied, and its owner does not learn of it: it commits once more
"""

FAULTS_AT: Final[dict[PointKind, tuple[Fault, ...]]] = {
    "dispatch": ("crash", "duplicate"),
    "answer": ("crash", "lost_answer"),
    "commit": ("crash", "lost_reply"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A durable point: a moment at which a fault leaves other work behind than a moment before.

    dispatch  an invocation is about to be executed
    answer    an invocation was executed; its answer is about to be taken in
    commit    a commit was applied; its reply is about to be taken in
    """

    number: int  # counts from 1
    kind: PointKind
    what: str  # for people

    def __str__(self) -> str:
        return f"point {self.number}, {self.kind} of {self.what}"


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault that shall happen at one point."""

    point: int
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is made of."""

    keys: AppKeys
    registry: Registry
    threads: Threads
    mode: Mode
    seed: int | None  # what decides what happens next; None: the order in which it was asked for
    start_ms: int
    is_automatic: bool  # whether time moves by itself when everything waits
    fault: PlannedFault | None


class Engine(Protocol):
    """Runs workflows in this process; used from one event loop, and only from outside of them."""

    is_automatic: bool

    @property
    def fault_was_hit(self) -> bool:
        """Whether the planned fault has happened."""
        ...

    @property
    def platform(self) -> Platform:
        """What serves the test: `fluvial.start` and the like."""
        ...

    @property
    def now_ms(self) -> int:
        """The virtual time."""
        ...

    @property
    def points(self) -> Sequence[Point]:
        """The durable points so far."""
        ...

    @property
    def history(self) -> Sequence[str]:
        """What has happened so far, a line each."""
        ...

    async def settle(self) -> None:
        """Let everything happen that can happen now; time stands still."""
        ...

    async def reach(self, condition: Callable[[], bool], what: str) -> None:
        """Let things happen until `condition` holds; time moves if the engine is automatic.

        Raises:
            StuckError: it does not come to that.
        """
        ...

    async def advance(self, milliseconds: int) -> None:
        """Let time pass, and everything happen that becomes due."""
        ...

    async def pause(self, milliseconds: int | None) -> None:
        """In a step: wait for so much virtual time; None: for ever."""
        ...

    async def crash(self) -> None:
        """Lose everything in memory, now."""
        ...

    def run_ids(self) -> list[str]:
        """The runs, in the order in which they were started."""
        ...

    def status(self, run_id: str) -> str: ...

    def events(self, run_id: str, start: int = 0) -> list[Event]:
        """The log of a run, from a position."""
        ...

    def open_hooks(self, run_id: str) -> list[str]:
        """The tokens of a run's open hooks."""
        ...

    async def close(self) -> None:
        """Cancel the steps that still run."""
        ...


EngineFactory = Callable[[EngineSettings], Engine]


def find_engine() -> EngineFactory:
    """Return the engine that is installed.

    Raises:
        EngineNotFoundError: none is.
    """
    for found in entry_points(group=GROUP, name=NAME):
        return cast("EngineFactory", found.load())
    raise EngineNotFoundError
