"""What error replies of the server mean."""

from __future__ import annotations

import hiredis

from fluvial_queue.contract import StoreError, StoreFullError, StoreUnavailableError

# The server refused the command before doing anything, and may take it later.
_TRY_LATER = frozenset(
    {
        "READONLY",
        "LOADING",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MASTERDOWN",
        "BUSY",
        "MISCONF",
        "NOREPLICAS",
        "UNBLOCKED",
    }
)
# A connection that has seen one of these may be talking to a server that is no longer the primary.
_MOVED_AWAY = frozenset({"READONLY", "MASTERDOWN", "CLUSTERDOWN"})


class NoScriptError(StoreError):
    """The server does not know a script: nothing happened; load it and repeat."""

    code = "store_no_script"


def error_of(reply: hiredis.ReplyError) -> StoreError:
    """Return the error to raise for an error reply."""
    text = str(reply)
    kind = text.partition(" ")[0]
    if kind == "NOSCRIPT":
        return NoScriptError(text)
    if kind == "OOM":
        return StoreFullError(f"the memory that the store may use is full: {text}")
    if kind == "MISCONF" and "No space left" in text:
        return StoreFullError(f"the disk of the store is full: {text}")
    if kind in _TRY_LATER:
        return StoreUnavailableError(f"the store refused for now: {text}")
    return StoreError(f"the store answered {text}")


def suggests_other_primary(reply: hiredis.ReplyError) -> bool:
    """Return whether a new connection might reach a server that accepts writes."""
    return str(reply).partition(" ")[0] in _MOVED_AWAY
