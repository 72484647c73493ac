"""Ids: a readable prefix and Crockford base 32 in lower case.

    run_<2 characters: partition><24 characters>     a run; its partition is readable from the id
    dpl_<24 characters>                              a deployment
    inv_<24 characters>                              an invocation
    ins_<24 characters>                              an instance

The 24 characters of a random id are 120 bits: 48 bits of Unix milliseconds, then 72 random bits, so
ids of one kind sort by time of creation. The 24 characters of a *keyed* run are 120 bits of SHA-256
over (app, workflow, key): the same start always names the same run, hence the same partition, and
the check "was this key started before?" needs no second record. Those of a *child* are of its
parent and the operation that asked for it, those of a *continued* run of the run before it, whose
partition it keeps: what a workflow asks for again on a replay has the same id. Those of a run that
*repeats* another one, and was asked for with a key, are of that run and the key.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from fluvial.errors import InvalidRequestError
from fluvial.unguarded import random_bytes, time_ns

MAX_PARTITIONS = 1024  # two base-32 characters
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RUN = re.compile(r"run_([0-9a-hjkmnp-tv-z]{2})[0-9a-hjkmnp-tv-z]{24}")
_RANDOM_BITS = 72
_BODY_CHARACTERS = 24


def new_id(prefix: str) -> str:
    """Return a fresh id such as `dpl_…`; ids of one prefix sort by time of creation."""
    return f"{prefix}_{_time_ordered()}"


def new_run_id(partitions: int) -> str:
    """Return a fresh run id in a partition chosen at random among `partitions`."""
    partition = int.from_bytes(random_bytes(4), "big") % partitions
    return f"run_{_base32(partition, 2)}{_time_ordered()}"


def keyed_run_id(app: str, workflow: str, key: str, partitions: int) -> str:
    """Return the run id that belongs to an idempotency key; equal arguments give equal ids."""
    partition, body = _digest(app, workflow, key)
    return f"run_{_base32(partition % partitions, 2)}{body}"


def child_run_id(run_id: str, operation: int, partitions: int) -> str:
    """Return the id of the child that a run asks for with its operation of that number."""
    partition, body = _digest("child", run_id, str(operation))
    return f"run_{_base32(partition % partitions, 2)}{body}"


def continued_run_id(run_id: str) -> str:
    """Return the id of the run that goes on in place of this one; in the same partition."""
    _, body = _digest("continued", run_id, "")
    return f"{run_id[:6]}{body}"


def repeated_run_id(run_id: str, how: str, partitions: int) -> str:
    """Return the id of the one run that repeats this one, or a part of it, as `how` says."""
    partition, body = _digest("repeated", run_id, how)
    return f"run_{_base32(partition % partitions, 2)}{body}"


def is_derived(run_id: str, *parts: str) -> bool:
    """Whether a run id is the keyed id of (app, workflow, key), or the child's of ("child", parent,
    operation), whatever its partition."""
    return run_id[6:] == _digest(*parts)[1]


@lru_cache(maxsize=16_384)  # a run's id is asked for at every hand-off
def partition_of(run_id: str) -> int:
    """Return the partition that a run id names.

    Raises:
        InvalidRequestError: `run_id` is not a run id.
    """
    match = _RUN.fullmatch(run_id)
    if match is None:
        raise InvalidRequestError(f"{run_id!r} is not a run id (run_ and 26 characters)")
    digits = match.group(1)
    return _ALPHABET.index(digits[0]) * 32 + _ALPHABET.index(digits[1])


def created_ms(time_ordered_id: str) -> int:
    """Return when an id that `new_id` made was made, in Unix milliseconds, to the second or better.

    Raises:
        InvalidRequestError: it has no such form.
    """
    digits = time_ordered_id[-_BODY_CHARACTERS:]
    if len(digits) < _BODY_CHARACTERS or not set(digits) <= set(_ALPHABET):
        raise InvalidRequestError(f"{time_ordered_id!r} does not end with 24 base-32 characters")
    number = 0
    for digit in digits:
        number = number << 5 | _ALPHABET.index(digit)
    return number >> _RANDOM_BITS


def _digest(*parts: str) -> tuple[int, str]:
    """Return (a number to choose a partition by, the 24 characters)."""
    digest = hashlib.sha256(b"\0".join(part.encode() for part in parts)).digest()
    body = int.from_bytes(digest[4:19], "big")
    return int.from_bytes(digest[:4], "big"), _base32(body, _BODY_CHARACTERS)


def _time_ordered() -> str:
    milliseconds = time_ns() // 1_000_000
    random = int.from_bytes(random_bytes(_RANDOM_BITS // 8), "big")
    return _base32(milliseconds << _RANDOM_BITS | random, _BODY_CHARACTERS)


def _base32(number: int, characters: int) -> str:
    return "".join(_ALPHABET[number >> 5 * i & 31] for i in range(characters - 1, -1, -1))
