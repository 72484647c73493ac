"""What a store promises about hooks: who holds their tokens, and which of them are open."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Protocol

CLOSED: Final = "closed"


class OpenHook(NamedTuple):
    """An open hook of a run."""

    id: int  # the operation's, in the run
    position: int  # of its HOOK_OPENED in the run's log


FoundHook = OpenHook | Literal["closed"] | None
"""A hook as its token finds it; None: the run has opened none, or has ended."""


class HookStore(Protocol):
    """The part of the store that knows hooks; a run's end closes and forgets them."""

    async def claim_token(self, app: str, token: str, run_id: str) -> str:
        """Claim a user-chosen hook token; return the id of the run that now holds it.

        The claim succeeds if nobody holds the token, if `run_id` does already, or if the holder is
        terminal, gone, or has closed that hook (checked, then replaced by compare-and-set)."""
        ...

    async def token_holder(self, app: str, token: str) -> str | None: ...

    async def open_hooks(self, run_id: str) -> dict[str, OpenHook]:
        """Return the run's open hooks by their tokens."""
        ...

    async def find_hook(self, run_id: str, token: str) -> FoundHook:
        """Return how the run's hook with this token stands."""
        ...

    async def has_resumed(self, run_id: str, token: str, resume_id: str) -> bool:
        """Whether a payload with this id was accepted; known until the run ends."""
        ...
