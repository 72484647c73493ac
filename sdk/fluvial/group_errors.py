"""Errors that are groups of errors: `except*` and `split` work on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from fluvial.errors import FluvialError


class MapFailedError(FluvialError, ExceptionGroup[Exception]):
    """More items of a `map` failed than is tolerated.

    It is the group of the failures, so that `except*` works. `failures` maps the index of an item
    to its error, `results` that of an item to its result; results do not leave the workflow.
    """

    code = "map_failed"
    only_here = frozenset({"results"})
    results: Mapping[int, Any] = MappingProxyType({})

    def __new__(
        cls, failures: Mapping[int, Exception], results: Mapping[int, Any], *, total: int
    ) -> Self:
        index, first = min(failures.items(), key=lambda item: item[0])
        message = (
            f"{len(failures)} of {total} items failed, more than is tolerated; the first was item"
            f" {index}: {_line_of(first)}"
        )
        return super().__new__(cls, message, [failures[index] for index in sorted(failures)])

    def __init__(
        self, failures: Mapping[int, Exception], results: Mapping[int, Any], *, total: int
    ) -> None:
        super().__init__(self.message, self.exceptions)
        self.indexes = sorted(failures)
        self.results = results
        self.total = total

    @property
    def failures(self) -> dict[int, Exception]:
        """The error of each item that failed, by the item's index."""
        return dict(zip(self.indexes, self.exceptions, strict=False))


class CompensationFailedError(FluvialError, ExceptionGroup[Exception]):
    """A Saga could not undo everything; all compensations have run.

    It is the group of what ended the block, unless that was a cancel, and of the `failures` of
    compensations. `original` is what ended the block; None where `compensate` was called.
    """

    code = "compensation_failed"

    def __new__(cls, original: BaseException | None, failures: Sequence[Exception]) -> Self:
        first = failures[0]
        message = (
            f"{len(failures)} compensation(s) failed"
            f"{'' if original is None else f' after {type(original).__name__}'}; the first:"
            f" {_line_of(first)}"
        )
        causes = [original] if isinstance(original, Exception) else []
        return super().__new__(cls, message, [*causes, *failures])

    def __init__(self, original: BaseException | None, failures: Sequence[Exception]) -> None:
        super().__init__(self.message, self.exceptions)
        self.original = original
        self.failures = tuple(failures)


def _line_of(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - __str__ is the user's code
        return type(error).__name__
