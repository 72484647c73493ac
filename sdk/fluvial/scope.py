"""What a workflow's code may know of its run: who it is, chance, tokens; all repeatable."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from random import Random
from typing import Final

MADE_TOKEN: Final = "hook_"  # hook_<26 characters of the run id>_<24 secret characters>
_MADE = re.compile(r"hook_([0-9a-z]{26})_[a-z2-7]{24}")
_TOKEN_BYTES: Final = 15  # 120 bits: cannot be guessed; 24 characters


class RunScope:
    """One run's identity and its repeatable chance."""

    __slots__ = ("_hooks", "_random", "_secret", "app", "open_tokens", "run_id", "workflow")

    def __init__(self, run_id: str, app: str, workflow: str, secret: Callable[[], bytes]) -> None:
        self.run_id = run_id
        self.app = app
        self.workflow = workflow
        self.open_tokens: set[str] = set()
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
        return f"{MADE_TOKEN}{self.run_id.removeprefix('run_')}_{secret}"


def run_of_token(token: str) -> str | None:
    """Return the run id that a made token carries; None for a token chosen by a user."""
    match = _MADE.fullmatch(token)
    return f"run_{match.group(1)}" if match is not None else None
