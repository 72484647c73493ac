"""A death's notice and who asks for it may come in either order."""

from __future__ import annotations

import asyncio

from fluvial_gateway.death_notices import DeathNotices


def test_told_before_it_is_asked_for() -> None:
    async def main() -> None:
        notices = DeathNotices()
        notices.tell("ins_1", "signal:9")

        assert await notices.reason("ins_1", 1.0) == "signal:9"
        assert notices.known("ins_2") is None

    asyncio.run(main())


def test_told_while_somebody_waits() -> None:
    async def main() -> None:
        notices = DeathNotices()
        asking = asyncio.ensure_future(notices.reason("ins_1", 10.0))
        await asyncio.sleep(0)
        notices.tell("ins_1", "idle")

        assert await asking == "idle"

    asyncio.run(main())


def test_never_told() -> None:
    async def main() -> None:
        assert await DeathNotices().reason("ins_1", 0.001) is None

    asyncio.run(main())


def test_old_notices_are_forgotten() -> None:
    notices = DeathNotices()
    for number in range(300):
        notices.tell(f"ins_{number}", "idle")

    assert notices.known("ins_0") is None
    assert notices.known("ins_299") == "idle"


def test_all_who_wait_for_a_death_are_told() -> None:
    async def main() -> None:
        notices = DeathNotices()
        asking = [asyncio.ensure_future(notices.reason("ins_1", 10.0)) for _ in range(3)]
        await asyncio.sleep(0)
        notices.tell("ins_1", "signal:11")

        assert await asyncio.gather(*asking) == ["signal:11"] * 3

    asyncio.run(main())
