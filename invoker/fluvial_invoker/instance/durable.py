"""The durable side of the SDK, as this instance uses it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from fluvial import guards
from fluvial.encryption import AppKeys
from fluvial.registry import registry
from fluvial.turns import LiveRuns
from fluvial_invoker.instance.functions import Runs
from fluvial_invoker.instance.threads import run_in_thread

_T = TypeVar("_T")

# Before a bundle is imported: only names that are looked up afterwards see the guards.
install_guards: Final = guards.install

# After the bundle's imports and the app's start-up, which every instance does alike.
complete_registry: Final = registry.complete


class MeteredThreads:
    """`fluvial.threads.Threads` on the instance's own pool."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(self, function: Callable[[], _T]) -> _T:
        """Run a sync step; when cancelled, raise only once its thread has stopped."""
        context = contextvars.copy_context()
        return await run_in_thread(self._executor, lambda: context.run(function))


def live_runs(keys: AppKeys, executor: Executor) -> Runs:
    """Return what takes turns and executes steps with the app's keys."""
    return LiveRuns(registry, keys, threads=MeteredThreads(executor))
