"""User ids for strangers' code, where the platform runs as root.

Each app has a user id of its own, from a range that belongs to the platform: its processes can
neither read what is root's (keyring, token, sockets, store) nor touch those of another app. What
they need, the interpreter, the platform's packages, bundles and layers, must be open to everybody;
where it is not (a home below `/root`, say), nothing is dropped, and `reason` says why.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluvial.errors import InvalidRequestError

VARIABLE: Final = "FLUVIAL_INSTANCE_UIDS"
OFF: Final = "off"
_DEFAULT: Final = "50000-59999"
_RANGE: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_LEAST_IDS: Final = 16
_PUBLIC_FOLDERS: Final = ("bundles", "layers", "runtime")


@dataclass(frozen=True, slots=True)
class Identities:
    """The range of user ids in use, or the reason why there is none."""

    first: int = 0
    last: int = 0
    reason: str = ""

    @property
    def are_used(self) -> bool:
        """Whether strangers' code gets a user id of its own."""
        return self.first > 0

    @property
    def for_inspection(self) -> int | None:
        """Whose code is being looked at for the first time; None: the platform's own id."""
        return self.first if self.are_used else None


class AppIdentities:
    """Which app has which user id; stable while this object lives, mostly also beyond."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._by_app: dict[str, int] = {}
        self._taken: set[int] = set()

    def of(self, app: str) -> int | None:
        """Return the app's user id (its group's too), None where ids are not used.

        Raises:
            InvalidRequestError: the range is exhausted.
        """
        if not self._identities.are_used:
            return None
        known = self._by_app.get(app)
        if known is None:
            known = self._by_app[app] = self._choose(app)
            self._taken.add(known)
        return known

    def _choose(self, app: str) -> int:
        first = self._identities.first + 1  # the first is the inspection's
        size = self._identities.last - first + 1
        if len(self._taken) >= size:
            raise InvalidRequestError(f"{VARIABLE} has no user id left for {app}")
        place = int.from_bytes(hashlib.sha256(app.encode()).digest()[:8], "big") % size
        while first + place in self._taken:
            place = (place + 1) % size
        return first + place


def choose_identities(environment: Mapping[str, str], home: Path) -> Identities:
    """Return the identities for strangers' code on this machine.

    Raises:
        InvalidRequestError: the setting is malformed.
    """
    first, last = _range(environment.get(VARIABLE) or _DEFAULT)
    if os.geteuid() != 0:
        return Identities(reason="the platform does not run as root")
    if not first:
        return Identities(reason=f"{VARIABLE} is off")
    for path in _needed(home):
        closed = closed_at(path)
        if closed is not None:
            return Identities(reason=f"{closed} is closed to other users, and {path} is needed")
    return Identities(first=first, last=last)


def closed_at(path: Path) -> Path | None:
    """Return the first part of `path` that other users may not pass or read; None: none."""
    for start in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        for part in (*reversed(start.parents), start):
            try:
                mode = part.stat().st_mode
            except OSError:
                return part
            needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
            if not mode & needed:
                return part
    return None


def _range(setting: str) -> tuple[int, int]:
    if setting == OFF:
        return 0, 0
    match = _RANGE.fullmatch(setting)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < first <= last - _LEAST_IDS or last >= 1 << 31:
        raise InvalidRequestError(
            f"{VARIABLE} is {setting!r}: expected `off` or a range of at least {_LEAST_IDS} user "
            f"ids such as {_DEFAULT}"
        )
    return first, last


def _needed(home: Path) -> Iterable[Path]:
    yield Path(sys.executable)
    yield Path(os.__file__)
    for name in _PUBLIC_FOLDERS:
        yield home / name
    yield from (home / "runtime").glob("*/*")
