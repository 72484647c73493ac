"""W3C Trace Context: the position of an invocation in the trace that its request belongs to.

Ids are derived from the invocation's, so they cost nothing unless somebody asks for them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

# Version 00; of a later one, what is known may be used (W3C Trace Context §4.3).
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}"
    r"-(?P<flags>[0-9a-f]{2})(?:-.*)?"
)
_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8
_LENGTH: Final = 55  # of version 00
_SAMPLED: Final = "01"


def child_traceparent(traceparent: str, invocation: str) -> str:
    """Return the `traceparent` for what an invocation calls.

    It has the trace and the flags of `traceparent`, as the request had it, and the invocation's own
    span id; where that is missing or malformed, the invocation begins a trace, which is sampled.
    """
    span = _digest(invocation, _SPAN_BYTES)
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (traceparent.startswith("00") and len(traceparent) != _LENGTH):
        return f"00-{_digest(invocation, _TRACE_BYTES)}-{span}-{_SAMPLED}"
    return f"00-{found['trace']}-{span}-{found['flags']}"


def _digest(invocation: str, size: int) -> str:
    return hashlib.blake2b(invocation.encode(), digest_size=size).hexdigest()
