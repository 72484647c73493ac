"""Watches many endpoints at once for as long as you like, and costs nothing between the rounds.

All checks of a round are steps that run in parallel, each with its own retries. Between two rounds
the run sleeps durably: no process waits, and a restart of the machine changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fluvial import RetryableError, metadata, sleep, step, workflow
from fluvial.errors import NotInWorkflowError
from probing import Check, Endpoint, probe, summarise
from web import make_app

RETRIES: Final = 2


@step(retries=RETRIES, timeout="20s")
async def check(url: str) -> Check:
    """Look at `url`; what is still wrong at the last attempt is a finding, not a failure."""
    finding = await probe(url)
    if not finding.ok and _attempts_left() > 0:
        raise RetryableError(f"{url}: {finding.error}", retry_after=0.2)
    return finding


@workflow
async def watch(urls: list[str], rounds: int, interval: float) -> list[Endpoint]:
    """Check all `urls`, `rounds` times, `interval` seconds apart; return the report."""
    checks: list[Check] = []
    for number in range(rounds):
        if number:
            await sleep(interval)
        checks += await asyncio.gather(*(check(url) for url in urls))
    return summarise(checks)


def _attempts_left() -> int:
    try:
        return RETRIES + 1 - metadata().attempt
    except NotInWorkflowError:
        return 0  # a plain call, from a test or a shell


app = make_app(watch)
