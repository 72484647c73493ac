"""What a workflow's code may know of its run: who it is, chance, tokens; all repeatable.

There are two sources of chance, both seeded by the run's secret:

    random     what Python's `random` gives: a Mersenne Twister, which the workflow may seed anew
    entropy    what the operating system gives: bytes from a keyed hash, which nobody can foretell
               who does not have the app's key, whatever the workflow has shown of them before
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from random import Random
from typing import Final

from fluvial.hook_tokens import SECRET_BYTES, secret_token

_COUNTER_BYTES: Final = 8


class RunScope:
    """One run's identity and its repeatable chance."""

    __slots__ = (
        "_entropy_key",
        "_entropy_reads",
        "_hooks",
        "_last_tick",
        "_random",
        "_secret",
        "app",
        "open_tokens",
        "partitions",
        "run_id",
        "states",
        "workflow",
    )

    def __init__(
        self,
        run_id: str,
        app: str,
        workflow: str,
        secret: Callable[[], bytes],
        *,
        partitions: int = 1,
    ) -> None:
        """`partitions`: of the store; the ids of child runs need it."""
        self.run_id = run_id
        self.partitions = partitions
        self.app = app
        self.workflow = workflow
        self.open_tokens: set[str] = set()
        self._secret = secret  # called when first needed: most runs need no chance
        self._random: Random | None = None
        self._entropy_key: bytes | None = None
        self._entropy_reads = 0
        self._hooks = 0
        self._last_tick = 0
        self.states = 0  # how often the run has published its state

    @property
    def random(self) -> Random:
        """The run's random numbers: seeded by the run, the same on every replay."""
        if self._random is None:
            self._random = Random(self._derive(b"random"))
        return self._random

    def entropy(self, size: int) -> bytes:
        """Return `size` fresh bytes, the same on every replay."""
        if self._entropy_key is None:
            self._entropy_key = self._derive(b"entropy")
        self._entropy_reads += 1
        counter = self._entropy_reads.to_bytes(_COUNTER_BYTES, "big")
        # SHAKE with the key before the data is a keyed hash: sponges need no HMAC construction.
        return hashlib.shake_256(self._entropy_key + counter).digest(size)

    def tick(self, at: int) -> int:
        """Return `at`, or the number after the last one returned if that is greater."""
        self._last_tick = max(at, self._last_tick + 1)
        return self._last_tick

    def next_token(self) -> str:
        """A token for the next hook: it carries the run id and cannot be guessed."""
        self._hooks += 1
        digest = self._derive(b"hook%d %b" % (self._hooks, self.run_id.encode()))
        return secret_token(self.run_id, digest[:SECRET_BYTES])

    def _derive(self, purpose: bytes) -> bytes:
        return hmac.digest(self._secret(), purpose, hashlib.sha256)
