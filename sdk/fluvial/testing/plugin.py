"""The pytest plugin: fixtures, and the runs' logs in the report of a test that fails.

pytest loads it by its entry point; nothing else imports it, so Fluvial does not need pytest.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from fluvial.testing.crashes import CrashReport
    from fluvial.testing.environment import Environment
    from fluvial.testing.synchronous import SyncEnvironment

ASYNC_FIXTURE: Final = "fluvial_env"
SYNC_FIXTURE: Final = "fluvial_sync_env"
CRASHES_FIXTURE: Final = "fluvial_crashes"
_OTHER_RUNNERS: Final = ("anyio", "asyncio", "trio")  # markers of plugins that run async tests


@pytest.fixture
def fluvial_env() -> Generator[Environment, None, None]:
    """An environment for an async test. The test needs no plugin for asyncio, and may have one."""
    # Late: pytest loads this module in every session, also where Fluvial is not tested.
    from fluvial.testing.environment import Environment

    environment = Environment()
    yield environment
    environment.release()


@pytest.fixture
def fluvial_sync_env() -> Generator[SyncEnvironment, None, None]:
    """An environment for a test that is not async."""
    from fluvial.testing.synchronous import SyncEnvironment

    with SyncEnvironment() as environment:
        yield environment


@pytest.fixture
def fluvial_crashes() -> Callable[..., Awaitable[CrashReport]]:
    """`enumerate_crashes`, for an async test; it prints what it has tried."""
    from fluvial.testing.crashes import enumerate_crashes

    async def enumerate_and_tell(*args: Any, **options: Any) -> CrashReport:
        report = await enumerate_crashes(*args, **options)
        print(report)  # noqa: T201 - pytest keeps it with the test
        return report

    return enumerate_and_tell


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that uses one of the async fixtures, unless another plugin does."""
    given = pyfuncitem.funcargs
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    if ASYNC_FIXTURE not in given and CRASHES_FIXTURE not in given:
        return None
    if any(pyfuncitem.get_closest_marker(name) for name in _OTHER_RUNNERS):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: value for name, value in given.items() if name in names}
    asyncio.run(_run(pyfuncitem.obj, arguments))
    return True


async def _run(test: Any, arguments: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        if ASYNC_FIXTURE in arguments:
            await stack.enter_async_context(arguments[ASYNC_FIXTURE])
        await test(**arguments)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of all runs to the report of a test that fails."""
    report = yield
    if report.when == "call" and report.failed:
        arguments = getattr(item, "funcargs", {})
        for name in (ASYNC_FIXTURE, SYNC_FIXTURE):
            if name in arguments:
                report.sections.append(("fluvial runs", arguments[name].report()))
    return report
