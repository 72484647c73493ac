"""One mutant: a change of one place in the sources, and the tests that must fail for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]


class DoesNotApplyError(Exception):
    """The text that a mutant replaces does not stand in its file exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A small bug.

    `tests` are arguments of pytest: files, or single tests of them. Each has some that are quick
    and to the point, so that a run of all mutants takes minutes.
    """

    name: str
    path: str  # of the file, from the repository's root
    old: str  # stands in it exactly once
    new: str
    breaks: str  # the promise that does not hold any more
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        """The folder that is an import root: `sdk` or `queue`."""
        return self.path.partition("/")[0]

    @property
    def module(self) -> str:
        """The module that has changed; of a script, its package."""
        inside = Path(self.path).relative_to(self.room)
        parts = inside.with_suffix("").parts if inside.suffix == ".py" else inside.parts[:2]
        return ".".join(parts).removesuffix(".__init__")

    def apply_to(self, source: str) -> str:
        """Return the file's text with the bug in it.

        Raises:
            DoesNotApplyError: the file has changed meanwhile.
        """
        count = source.count(self.old)
        if count != 1:
            raise DoesNotApplyError(
                f"the text of mutant {self.name!r} stands {count} times in {self.path}, not once;"
                " the code has moved on: mend the list in tests/mutants"
            )
        return source.replace(self.old, self.new)
