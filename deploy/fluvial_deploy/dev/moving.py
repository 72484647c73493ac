"""Live runs follow the code: each moves to a new deployment, where its replay check passes.

A run that is to move is paused, which is one entry of its log, and resumed on the new deployment,
which is another: steps under way end where they began, and nothing is done twice. A run that would
diverge stays where it is. A run that somebody has paused stays paused; one that the platform has
paused because its code diverged goes on, if the new code is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from fluvial.client import Client
    from fluvial.replay_reports import RunCheck

MAX_RUNS: Final = 200  # looked at after one reload
_REASON: Final = "fluvial dev moves it to new code"
_DIVERGED: Final = "diverged"
_PAUSE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one live run."""

    run_id: str
    workflow: str
    outcome: Literal["moved", "stays"]
    detail: str = ""  # why it stays


async def move_runs(client: Client, deployment: str) -> AsyncIterator[Moved]:
    """Move the app's live runs to `deployment`; yield what became of each that was elsewhere.

    Raises:
        FluvialError: the platform cannot be asked.
    """
    for check in await asyncio.to_thread(_checks, client, deployment):
        moved = await _follow(client, check, deployment)
        if moved is not None:
            yield moved


def _checks(client: Client, deployment: str) -> list[RunCheck]:
    from fluvial.replay_reports import RunCheck

    found = client.replay_check(deployment, limit=MAX_RUNS)
    return [check for check in found if isinstance(check, RunCheck)]


async def _follow(client: Client, check: RunCheck, deployment: str) -> Moved | None:
    """Let one run follow; None: it is there, has ended, or somebody has paused it."""
    from fluvial.client import ProblemError

    run_id, is_there = check.run_id, check.deployment == deployment
    if is_there and check.status != "paused":
        return None
    try:
        run = await asyncio.to_thread(client.run, run_id)
        if is_there or check.finding != "ok":
            if _is_paused_for(run, _REASON):  # by a session that ended before it had moved it
                await asyncio.to_thread(client.resume, run_id)
            why = None if is_there else check.detail
        else:
            why = await _move(client, run, deployment)
    except ProblemError as error:
        why = str(error)
    except TimeoutError:
        why = f"it was not paused within {_PAUSE_SECONDS:g} s"
    if why is None:
        return None
    return Moved(run_id, check.workflow, "stays" if why else "moved", why)


async def _move(client: Client, run: dict[str, Any], deployment: str) -> str | None:
    """Move a run; return why it stays, "" if it does not, None if that is nobody's concern."""
    run_id = str(run["run_id"])
    if run["status"] == "running":
        await asyncio.to_thread(client.pause, run_id, _REASON)
        async with asyncio.timeout(_PAUSE_SECONDS):
            if not await asyncio.to_thread(_wait_for_pause, client, run_id, run["events"]):
                return None
    elif run["status"] != "paused":
        return f"it is {run['status']}"
    elif not _is_paused_for(run, _DIVERGED, _REASON):
        return None
    await asyncio.to_thread(client.resume, run_id, deployment=deployment)
    return ""


def _is_paused_for(run: dict[str, Any], *reasons: str) -> bool:
    return run["status"] == "paused" and str(run["reason"]).startswith(reasons)


def _wait_for_pause(client: Client, run_id: str, start: int) -> bool:
    """Wait until the run's log says that it is paused; false: it has ended before."""
    return any(event["type"] == "run_paused" for event in client.follow(run_id, start=start))
