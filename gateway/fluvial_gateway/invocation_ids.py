"""Ids for many invocations a second.

`fluvial.ids.new_id` reads random bytes from the kernel and writes 24 digits; here the first 22
digits are made once for up to a thousand invocations of one second, the last two count. The ids
have the same form, sort by the second of their creation, and repeat no sooner.
"""

from __future__ import annotations

from typing import Final

from fluvial.ids import new_id

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ENDINGS: Final = [first + second for first in _DIGITS for second in _DIGITS]


class InvocationIds:
    """Makes `inv_…` ids."""

    __slots__ = ("_next", "_prefix", "_second")

    def __init__(self) -> None:
        self._prefix = ""
        self._next = len(_ENDINGS)
        self._second = -1

    def new(self, now: float) -> str:
        """Return a fresh id; `now` is any clock in seconds that does not go back."""
        second = int(now)
        if self._next >= len(_ENDINGS) or second != self._second:
            self._prefix = new_id("inv")[:-2]
            self._second = second
            self._next = 0
        ending = _ENDINGS[self._next]
        self._next += 1
        return self._prefix + ending
