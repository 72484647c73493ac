"""Singletons: at most one live run of an app for a text that the user has chosen.

A claim names the run that may live, in the slot of its own hash; the run lives in another slot, so
the two cannot change together. The order is: claim, then start. Between the two the run does not
exist yet, and still its claim must hold: for `GRACE_MS` from the claim's own time on. A start that
belongs to a claim carries a time after which the store refuses it, well before that grace is over;
so a program that was stopped for a while between the two cannot start a second run.

A claim is void once its run has ended, or has not come to be in time. Whoever finds it void
replaces exactly that claim (compare-and-set on a value that is never used twice).
"""

from __future__ import annotations

import secrets
from typing import Final, Protocol

from fluvial.ids import continued_run_id
from fluvial_queue.contract import RunStatus, SingletonClaim

GRACE_MS: Final = 120_000
START_WITHIN_MS: Final = 60_000
_ATTEMPTS: Final = 5  # each lost one means that somebody else has just won
_MAX_HOPS: Final = 10_000  # runs in a row that went on as new ones
_NONCE_HEX: Final = 8
_TIME_DIGITS: Final = 14
_STAMP: Final = _TIME_DIGITS + _NONCE_HEX


class ClaimBoard(Protocol):
    """Where the claims are kept, and what is known of runs."""

    async def now_ms(self) -> int: ...

    async def put(self, app: str, key: str, run_id: str, stamp: str, void: str) -> str:
        """Write the claim `run_id + stamp` if there is none, it is the same run's, or it is `void`;
        return the claim that holds then."""
        ...

    async def status_of(self, run_id: str) -> RunStatus | None:
        """Return the status of a run; None: it does not exist."""
        ...


async def claim_singleton(
    board: ClaimBoard, app: str, key: str, run_id: str, *, replaces: str = ""
) -> SingletonClaim:
    """Claim a singleton for a run that is about to be started.

    With `replaces`, the id of a run, a claim of that run is treated as void.
    """
    now_ms = await board.now_ms()
    stamp = f"{now_ms:0{_TIME_DIGITS}}{secrets.token_hex(_NONCE_HEX // 2)}"
    holder, void = "", ""
    for _ in range(_ATTEMPTS):
        claim = await board.put(app, key, run_id, stamp, void)
        holder = holder_of(claim)
        if holder == run_id:
            return SingletonClaim(run_id, now_ms + START_WITHIN_MS)
        if holder != replaces and not await is_void(board, claim, now_ms):
            break
        void = claim
    return SingletonClaim(await _newest(board, holder))


async def is_void(board: ClaimBoard, claim: str, now_ms: int) -> bool:
    """Return whether a claim's run has ended, or has not come to be in time."""
    status = await board.status_of(await _newest(board, holder_of(claim)))
    if status is None:
        claimed_ms = int(claim[-_STAMP:-_NONCE_HEX])
        return now_ms > claimed_ms + GRACE_MS
    return status.is_terminal


def holder_of(claim: str) -> str:
    """Return the run that a claim names."""
    return claim[:-_STAMP]


async def _newest(board: ClaimBoard, run_id: str) -> str:
    """Return the run that goes on in place of `run_id`."""
    for _ in range(_MAX_HOPS):
        if await board.status_of(run_id) is not RunStatus.CONTINUED:
            break
        run_id = continued_run_id(run_id)
    return run_id
