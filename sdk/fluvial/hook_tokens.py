"""Tokens of hooks: how they are made, and what can be read from them.

    hook_<26 of the run id>_<24 secret characters>   made; nobody can guess it, and whoever has it
                                                     may resume the hook
    hook_<26 of the run id>_n.<name>                 of a hook with a name; no secret, so nothing
                                                     public takes it
    anything else                                    chosen by the user, and claimed within the app

A made token needs no index: it carries its run. `n.` is in no secret, as those have no dot.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from fluvial.errors import InvalidRequestError

MADE_TOKEN: Final = "hook_"
MAX_TOKEN_BYTES: Final = 256
SECRET_BYTES: Final = 15  # 120 bits; 24 characters
_RUN: Final = r"hook_([0-9a-hjkmnp-tv-z]{26})"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
_SECRET: Final = re.compile(rf"{_RUN}_[a-z2-7]{{24}}")
_NAMED: Final = re.compile(rf"{_RUN}_n\.({_NAME})")
HOOK_NAME: Final = re.compile(_NAME)


def secret_token(run_id: str, secret: bytes) -> str:
    """Return a made token; `secret` has SECRET_BYTES bytes."""
    return f"{_prefix(run_id)}_{base64.b32encode(secret).decode().lower()}"


def named_token(run_id: str, name: str) -> str:
    """Return the token of a run's hook with a name.

    Raises:
        InvalidRequestError: it is no name.
    """
    if HOOK_NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            f"a hook's name has 1 to 64 letters, digits, _ and -, and begins with a letter or _:"
            f" got {name!r}"
        )
    return f"{_prefix(run_id)}_n.{name}"


def check_chosen(token: str) -> None:
    """Raises:
    InvalidRequestError: a user cannot choose this token.
    """
    if not 1 <= len(token.encode()) <= MAX_TOKEN_BYTES:
        raise InvalidRequestError(f"a hook token must have 1 to {MAX_TOKEN_BYTES} bytes")
    if token.startswith(MADE_TOKEN):
        raise InvalidRequestError(f"a chosen hook token must not begin with {MADE_TOKEN!r}")


def is_secret(token: str) -> bool:
    """Whether a token was made, so that to know it is to be allowed to resume the hook."""
    return _SECRET.fullmatch(token) is not None


def without_secret(token: str) -> str:
    """Return a token as those may see it who may not resume its hook."""
    match = _SECRET.fullmatch(token)
    return token if match is None else f"{MADE_TOKEN}{match.group(1)}_…"


def run_of_token(token: str) -> str | None:
    """Return the run id that a token carries; None for one that a user has chosen."""
    match = _SECRET.fullmatch(token) or _NAMED.fullmatch(token)
    return f"run_{match.group(1)}" if match is not None else None


def token_in_fork(token: str, fork: str) -> str:
    """Return what a token of the origin is in a fork: a hook's name belongs to its run."""
    match = _NAMED.fullmatch(token)
    return token if match is None else named_token(fork, match.group(2))


def _prefix(run_id: str) -> str:
    return MADE_TOKEN + run_id.removeprefix("run_")
