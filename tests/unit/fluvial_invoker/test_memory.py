"""What the kernel says about the machine's memory."""

from __future__ import annotations

import asyncio

from fluvial_invoker import memory


def test_there_is_memory_and_not_more_available_than_there_is() -> None:
    assert 0 < memory.available_bytes() <= memory.total_bytes()


def test_a_watch_can_be_closed_whatever_the_kernel_offers() -> None:
    async def main() -> None:
        memory.PressureWatch(lambda: None).close()

    asyncio.run(main())
