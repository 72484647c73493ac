"""What a workflow's code may know of its run: who it is, chance, tokens; all repeatable."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from random import Random
from typing import Final

_TOKEN_BYTES: Final = 15  # 120 bits: cannot be guessed; 24 characters


class RunScope:
    """One run's identity and its repeatable chance."""

    __slots__ = ("_hooks", "_random", "_secret", "app", "run_id", "workflow")

    def __init__(self, run_id: str, app: str, workflow: str, secret: Callable[[], bytes]) -> None:
        self.run_id = run_id
        self.app = app
        self.workflow = workflow
        self._secret = secret  # called when first needed: most runs need no chance
        self._random: Random | None = None
        self._hooks = 0

    @property
    def random(self) -> Random:
        """The run's random numbers: seeded by the run, the same on every replay."""
        if self._random is None:
            self._random = Random(hmac.digest(self._secret(), b"random", hashlib.sha256))
        return self._random

    def next_token(self) -> str:
        """A token for the next hook: it carries the run id and cannot be guessed."""
        self._hooks += 1
        digest = hmac.digest(self._secret(), b"hook%d" % self._hooks, hashlib.sha256)
        secret = base64.b32encode(digest[:_TOKEN_BYTES]).decode().lower()
        return f"{self.run_id}.{secret}"


def run_of_token(token: str) -> str | None:
    """Return the run id that a generated token carries; None for a token chosen by a user."""
    run_id, dot, secret = token.partition(".")
    return run_id if dot and secret and run_id.startswith("run_") else None
