"""The phases of a cold start, as the response that waited for it tells them.

    fork     until the process existed: the invoker, and a zygote that was not there yet
    import   the deployment's modules; nothing in a fork of a snapshot, which has imported them
    ready    the rest until it took requests: lifespan start-up, hooks, the way there and back

They add up to the time between the wish for an instance and its first word. What the instance says
of itself is a stranger's claim, and moves time between `import` and `ready` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_TIERS: Final = frozenset({"snapshot", "zygote", "spawn"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """How an instance came to be; in seconds."""

    tier: str
    fork_seconds: float
    import_seconds: float
    ready_seconds: float

    @classmethod
    def measured(
        cls, tier: str, began: float, created: float, ready: float, claimed_import: float
    ) -> ColdStart:
        """Return the phases between three readings of one clock."""
        created = min(max(began, created), ready)
        imported = min(max(0.0, claimed_import), ready - created)
        return cls(
            tier=tier,
            fork_seconds=created - began,
            import_seconds=imported,
            ready_seconds=ready - created - imported,
        )

    def timings(self) -> str:
        """Return the phases as members of a Server-Timing header."""
        members = [f"fork;dur={self.fork_seconds * 1000:.1f}"]
        if self.import_seconds:
            members.append(f"import;dur={self.import_seconds * 1000:.1f}")
        members.append(f"ready;dur={self.ready_seconds * 1000:.1f}")
        return ", ".join(members)

    def header(self) -> str:
        """Return the line that marks a response that waited for a cold start."""
        return f"x-fluvial-cold-start: {self.tier if self.tier in _TIERS else 'other'}\r\n"
