from __future__ import annotations

import asyncio

import pytest

from fluvial_gateway.log_watching import LogWatches
from fluvial_gateway.problems import ProblemError

LONG_SECONDS = 3600.0  # nobody waits so long: the test would hang


class Notifier:
    def __init__(self) -> None:
        self.watched: list[list[str]] = []

    def watch_logs(self, apps: list[str]) -> None:
        self.watched.append(sorted(apps))


def test_a_watch_is_woken_by_what_its_app_writes_and_by_nothing_else() -> None:
    async def main() -> None:
        watches = LogWatches(Notifier())
        with watches.watching("shop") as watch, watches.watching("other") as other:
            watches.logged("shop")
            watches.logged("unknown")
            await watch.wait(LONG_SECONDS)
            watch.reset()
            await watch.wait(0.0)
            await other.wait(0.0)

            assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # in one

    asyncio.run(main())


def test_what_was_written_between_the_reading_and_the_wait_is_heard() -> None:
    async def main() -> None:
        watches = LogWatches(Notifier())
        with watches.watching("shop") as watch:
            watch.reset()
            watches.logged("shop")  # while the follower reads
            await watch.wait(LONG_SECONDS)

    asyncio.run(main())


def test_only_apps_that_are_followed_are_watched() -> None:
    notifier = Notifier()
    watches = LogWatches(notifier)
    with watches.watching("a"), watches.watching("a"), watches.watching("b"):
        pass

    assert notifier.watched == [["a"], ["a", "b"], ["a"], []]


def test_followers_are_bounded() -> None:
    watches = LogWatches(Notifier(), limit=1)
    with watches.watching("a"), pytest.raises(ProblemError), watches.watching("b"):
        raise AssertionError("a second one was let in")
    with watches.watching("b"):
        pass
