"""A workflow that is started by the clock, and tells what for."""

from __future__ import annotations

from fluvial import Cron, Tick, step, workflow


@step
async def told(tick: Tick) -> str:
    return f"{tick.cron} at {tick.at.isoformat()}"


@workflow(cron=Cron("@every 1s", name="often", args=["by the code"]))
async def report(how: str, *, tick: Tick) -> str:
    return f"{how}: {await told(tick)}"
