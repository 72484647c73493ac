"""The instances of the kit: what executes turns and steps, in this process."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from fluvial.context import Invocation, InvocationKind, activate
from fluvial.invocations import Answer, StepRequest, TurnRequest
from fluvial.ports import Platform
from fluvial.turns import LiveRuns

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.registry import Registry
    from fluvial.threads import Threads

DEPLOYMENT: Final = "dpl_kit"
APP_URL: Final = "http://test.localhost"


class Instances(Protocol):
    """Several instances, each with coroutines that are alive in it."""

    @property
    def count(self) -> int: ...

    def turn(self, number: int, request: TurnRequest) -> Answer:
        """Advance a run in one of them."""
        ...

    async def step(self, number: int, request: StepRequest) -> Answer:
        """Execute an attempt of a step in one of them."""
        ...

    def forget(self, number: int, run_ids: Iterable[str]) -> None:
        """Drop coroutines of one of them."""
        ...

    def crash(self, number: int) -> None:
        """Drop all coroutines of one of them."""
        ...


class LiveInstances:
    """Instances that run the code of a registry, as real ones do."""

    count = 2

    def __init__(
        self,
        registry: Registry,
        keys: AppKeys,
        platform: Platform,
        *,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        self._platform = platform
        self._live = [
            LiveRuns(registry, keys, threads=threads, clock=clock) for _ in range(self.count)
        ]

    def turn(self, number: int, request: TurnRequest) -> Answer:
        """Advance a run in one of them."""
        # A context of its own: what the workflow's code sets must not reach the test.
        return contextvars.copy_context().run(self._turn, number, request)

    def _turn(self, number: int, request: TurnRequest) -> Answer:
        activate(self._describe(number, "", "turn", 1), self._platform)
        return self._live[number].turn(request)

    async def step(self, number: int, request: StepRequest) -> Answer:
        """Execute an attempt of a step; call it in a task of its own."""
        activate(
            self._describe(number, request.invocation, "step", request.attempt), self._platform
        )
        return await self._live[number].step(request)

    def forget(self, number: int, run_ids: Iterable[str]) -> None:
        """Drop coroutines of one of them."""
        self._live[number].forget(run_ids)

    def crash(self, number: int) -> None:
        """Drop all coroutines of one of them."""
        self._live[number].close()

    def _describe(
        self, number: int, invocation: str, kind: InvocationKind, attempt: int
    ) -> Invocation:
        return Invocation(
            id=invocation,
            kind=kind,
            app=self._platform.app,
            deployment=DEPLOYMENT,
            instance=instance_name(number),
            attempt=attempt,
            app_url=APP_URL,
        )


def instance_name(number: int) -> str:
    """Return the id of an instance."""
    return f"ins_{number}"
