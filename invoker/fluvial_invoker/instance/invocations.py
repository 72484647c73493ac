"""Invocations under way in this instance: admission, one owned task each, one end each.

* An invocation is admitted or refused (NACK) before any of its code runs: when the instance drains,
  when as many are under way as the measured limit allows, or when the watchdog sees trouble.
* An admitted one that has not begun may be revoked by the watchdog, which acts for a blocked loop;
  it then ends with a NACK. Whether it begins is decided once, by `Link.claim`.
* Each has exactly one task, held by the invocation and ended exactly once (`ended`), whatever the
  code in it raises. Nothing that one invocation raises reaches another.
* A cancelled invocation counts until its code has really stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final, Protocol

from fluvial.context import Invocation as Description
from fluvial.context import InvocationKind, activate
from fluvial.wire import FrameType, pack
from fluvial_invoker.instance.adaptive_limit import AdaptiveLimit
from fluvial_invoker.instance.deadlines import Deadlines
from fluvial_invoker.instance.exhaustion import is_want
from fluvial_invoker.instance.idle import IdleWatch
from fluvial_invoker.instance.metering import Meter, Metered, current, ended_by_exit
from fluvial_invoker.instance.output import end_output
from fluvial_invoker.instance.platform import LinkPlatform
from fluvial_invoker.instance.samples import LAG

_NACK: Final = int(FrameType.NACK)

OUTCOME_OK: Final = "ok"
OUTCOME_ERROR: Final = "error"
OUTCOME_CANCELLED: Final = "cancelled"
OUTCOME_TIMEOUT: Final = "timeout"

# Why a gateway cancels, where it makes a difference; otherwise nobody waits for the answer.
CANCELLED_BY_TIMEOUT: Final = "timeout"
CANCELLED_BY_DRAIN: Final = "draining"  # a WebSocket, as the gateway is about to stop


class Link(Protocol):
    """What an invocation needs of the connection that it came over."""

    platform: LinkPlatform
    is_congested: bool  # more is waiting to be written than the connection takes

    def write(self, frame: bytes, /) -> None: ...
    def claim(self, conversation: int, /) -> bool: ...
    async def wait_until_writable(self) -> None: ...
    def wanted(self, error: BaseException, /) -> None: ...
    def goes_on(self, invocation: Invocation, /) -> None: ...


class Invocation(Meter):
    """One invocation; the base of HTTP invocations and steps."""

    kind: ClassVar[InvocationKind] = "http"

    __slots__ = (
        "attempt",
        "began",
        "conversation",
        "deadline",
        "is_revoked",
        "link",
        "on_end",
        "stopped",
        "task",
    )

    def __init__(
        self,
        conversation: int,
        link: Link,
        *,
        id: str | None,  # noqa: A002 - the glossary's word
        run: str | None = None,
    ) -> None:
        super().__init__(id, run)
        self.conversation = conversation
        self.attempt = 1
        self.link = link
        self.began = 0.0  # in the loop's clock, where somebody wants to know
        self.deadline = 0.0  # in the loop's clock; 0: none
        self.task: asyncio.Task[None] | None = None
        self.stopped: str | None = None  # the outcome, once it was told to stop
        self.is_revoked = False  # before it began: it runs elsewhere
        self.on_end: Callable[[Invocation], None] = _nothing

    async def run_body(self) -> None:
        """The user's code; runs in the invocation's task and context."""
        raise NotImplementedError

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Create the task; `on_end` is called when it is over."""
        self.task = asyncio.Task(_Steps(self._run(), self), loop=loop)

    async def _run(self) -> None:
        if self.stopped is not None:
            return  # a thread's invocation, which nothing cancels
        if not self.link.claim(self.conversation):
            self.is_revoked = True
            return
        current.set(self)
        activate(self, self.link.platform)
        await self.run_body()

    def describe(self) -> Description:
        """Return what `fluvial.context()` says here; made only if somebody asks."""
        platform = self.link.platform
        return platform.describe(
            self.id or "", self.kind, self.attempt, self.deadline, stop_asked=self.is_stopped
        )

    def is_stopped(self) -> bool:
        """Whether it was told to stop; also called in other threads."""
        return self.stopped is not None

    def cancel(self, reason: str = "") -> None:
        """The gateway does not want the answer any more, or is gone."""
        self.stop(OUTCOME_CANCELLED)

    def drain(self) -> None:
        """The instance is about to leave: end soon, if it could last for long."""

    def expire(self) -> None:
        """The deadline has passed."""
        self.stop(OUTCOME_TIMEOUT)

    def stop(self, outcome: str) -> None:
        """End the invocation early; the first reason stands."""
        if self.stopped is None:
            self.stopped = outcome
        if self.task is not None:
            self.task.cancel()

    def ended(self, error: BaseException | None) -> None:
        """The task is over: tell the gateway, then let go."""
        try:
            if self.is_revoked:
                self.link.write(pack(_NACK, self.conversation, LAG))
            else:
                self.answer(error)
            if error is not None and is_want(error):
                self.link.wanted(error)
        finally:
            self.task = None  # breaks the cycle with the task: freed now, not by the collector
            end_output(self)
            self.on_end(self)

    def ending(self) -> tuple[str, dict[str, Any]]:
        """Say how it has ended: the outcome, and what else there is to say."""
        raise NotImplementedError

    def answer(self, error: BaseException | None) -> None:
        """Write the last frames of this invocation."""
        raise NotImplementedError


class _Steps(Metered):
    """The steps of an invocation's own task: also notices the end, whatever it is."""

    __slots__ = ("_invocation",)

    def __init__(self, coroutine: Coroutine[Any, Any, None], invocation: Invocation) -> None:
        super().__init__(coroutine, invocation)
        self._invocation = invocation

    def send(self, value: Any, /) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *arguments: Any) -> Any:
        return self._step(self._coroutine.throw, *arguments)

    def _step(self, advance: Callable[..., Any], *arguments: Any) -> Any:
        invocation = self._invocation
        try:
            waited_for = advance(*arguments)
        except StopIteration:
            invocation.settle()
            invocation.ended(None)
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary between an invocation and its neighbours
            invocation.settle()
            if isinstance(error, SystemExit | KeyboardInterrupt):
                error = ended_by_exit(error)
            invocation.ended(error)
            raise StopIteration from None
        invocation.settle()
        if invocation.pending_head:
            invocation.flush_head()
        return waited_for


class Verdict(Protocol):
    """What the watchdog says about the instance (`watchdog.Watchdog`)."""

    @property
    def trouble(self) -> str: ...
    def busy(self) -> None: ...


class Admission:
    """Decides whether one more invocation may start, and knows what is under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        idle: IdleWatch,
        deadlines: Deadlines,
        *,
        max_concurrency: int,
        on_over: Callable[[Invocation], None] | None = None,
    ) -> None:
        self.ended = 0  # invocations, in all
        self.limit = AdaptiveLimit(max_concurrency)
        self._loop = loop
        self._idle = idle
        self._deadlines = deadlines
        self._verdict: Verdict | None = None
        self._on_over = on_over
        self._in_flight: set[Invocation] = set()
        self._lasting: set[Invocation] = set()  # told to stop long ago; nothing can stop them
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def in_flight(self) -> int:
        """How many invocations are under way."""
        return len(self._in_flight)

    def heed(self, verdict: Verdict) -> None:
        """Ask the watchdog too, from now on."""
        self._verdict = verdict

    def refusal(self) -> str | None:
        """Return why nothing can start now, or None."""
        if self._draining:
            return "draining"
        in_flight = len(self._in_flight)
        if in_flight and self._verdict is not None and self._verdict.trouble:
            return self._verdict.trouble
        if in_flight >= self.limit.now:
            return "concurrency"
        return None

    def start(self, invocation: Invocation, deadline_ms: int) -> None:
        """Run an invocation that was not refused."""
        self._in_flight.add(invocation)
        if self._on_over is not None:
            invocation.began = self._loop.time()
        self._idle.busy()
        if self._verdict is not None:
            self._verdict.busy()
        self._empty.clear()
        if deadline_ms > 0:
            invocation.deadline = self._loop.time() + deadline_ms / 1000
            self._deadlines.add(invocation)
        invocation.start(self._loop)

    def over(self, invocation: Invocation) -> None:
        """An invocation's code has stopped."""
        if self._on_over is not None:
            self._on_over(invocation)
        self._deadlines.remove(invocation)
        self._in_flight.discard(invocation)
        self._lasting.discard(invocation)
        self.ended += 1
        if not self._in_flight:
            self._empty.set()
            self._idle.idle()
        elif len(self._in_flight) == len(self._lasting):
            self._empty.set()

    def lasts(self, invocation: Invocation) -> bool:
        """Wait for this one no longer: nothing can stop its code; false: that was known."""
        if invocation in self._lasting:
            return False
        self._lasting.add(invocation)
        if len(self._in_flight) == len(self._lasting):
            self._empty.set()
        return True

    def touch(self) -> None:
        """Something short was done, or is about to come: count idleness from now on."""
        if not self._in_flight:
            self._idle.idle()

    def keep(self, *, wanted: bool) -> None:
        """A gateway wants the instance to stay when it is idle, or does so no more."""
        self._idle.keep(wanted=wanted)

    def drain(self) -> None:
        """Refuse everything from now on."""
        self._draining = True
        self._idle.stop()
        for invocation in list(self._in_flight):
            invocation.drain()

    async def wait_until_empty(self) -> None:
        """Wait until nothing is under way but what cannot be stopped."""
        await self._empty.wait()

    def cancel_all(self) -> None:
        for invocation in list(self._in_flight):
            invocation.cancel(CANCELLED_BY_DRAIN)


def _nothing(_: Invocation) -> None:
    return None
