"""The opponent's client: sends tasks and waits for their results.

`python -m tests.benchmarks.taskiq_client TASKS IN_FLIGHT` prints JSON: the total seconds, each
task's seconds, and the client's own CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from tests.benchmarks.taskiq_app import add_one, broker

CHECK_SECONDS = 0.001  # how often the client looks for a result: its library knows no push


async def main(tasks: int, in_flight: int) -> None:
    """Send `tasks` tasks, `in_flight` at a time."""
    await broker.startup()
    gate = asyncio.Semaphore(in_flight)

    async def one() -> float:
        async with gate:
            began = time.perf_counter()
            sent = await add_one.kiq(1)
            await sent.wait_result(check_interval=CHECK_SECONDS, timeout=60)
            return time.perf_counter() - began

    await asyncio.gather(*(one() for _ in range(min(tasks, 20))))
    before = os.times()
    began = time.perf_counter()
    seconds = await asyncio.gather(*(one() for _ in range(tasks)))
    total = time.perf_counter() - began
    after = os.times()
    cpu = after.user + after.system - before.user - before.system
    sys.stdout.write(json.dumps({"total": total, "tasks": seconds, "cpu": cpu}))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
