"""Places in user code: the file, line and function from which something came, for messages."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from fluvial.origins import DRIVER, Origin, origin_of

_ORIGIN_DEPTH: Final = 24  # frames remembered per coroutine: through asyncio to the user's call
_MAX_FILE_CHARACTERS: Final = 200
_MAX_NAME_CHARACTERS: Final = 100

_Step = tuple[str, int, str]  # file, line, function


@dataclass(frozen=True, slots=True)
class Place:
    """A line of user code; `file` is relative to where it was imported from."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@contextmanager
def origins_tracked() -> Generator[None, None, None]:
    """Have coroutines of this thread remember where they were made, for `place_of_origin`."""
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(_ORIGIN_DEPTH)
    try:
        yield
    finally:
        sys.set_coroutine_origin_tracking_depth(before)


def place_of_caller() -> Place | None:
    """Return the innermost line of user code that is running in this thread."""
    return _place(_stack())


def place_of_origin(coroutine: Any) -> Place | None:
    """Return the line of user code that made a coroutine, under `origins_tracked`."""
    origin: tuple[_Step, ...] | None = getattr(coroutine, "cr_origin", None)
    return _place(origin or ())


def place_of_wait(coroutine: Any) -> Place | None:
    """Return the innermost line of user code at which a suspended coroutine waits."""
    return _place(reversed(list(_awaits(coroutine))))


def place_of_error(error: BaseException) -> Place | None:
    """Return the innermost line of user code that an error came through."""
    return _place(reversed(list(_traceback(error))))


def _place(steps: Iterable[_Step]) -> Place | None:
    """Return the first step in the user's own code, else in an installed package's; `steps` go
    outwards."""
    known = list(steps)
    return _first(known, Origin.USER) or _first(known, Origin.INSTALLED)


def _first(steps: list[_Step], wanted: Origin) -> Place | None:
    file, line = "", 0
    for filename, number, function in steps:
        if origin_of(filename) is not wanted:
            continue
        if not file:
            file, line = _relative(filename), number
        # A generator expression is in the line, but nobody knows it by its name.
        if not function.startswith("<"):
            return Place(file, line, function[:_MAX_NAME_CHARACTERS])
    return Place(file, line, "a module") if file else None


def _relative(filename: str) -> str:
    """Return a file's path below the folder that it was imported from."""
    roots = [root for root in sys.path if root and filename.startswith(root.rstrip("/") + "/")]
    if not roots:
        return Path(filename).name[-_MAX_FILE_CHARACTERS:]
    longest = max(roots, key=len).rstrip("/")
    return filename[len(longest) + 1 :][-_MAX_FILE_CHARACTERS:]


def _stack() -> Iterator[_Step]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    while frame is not None and frame.f_code.co_qualname != DRIVER:
        yield _step(frame.f_code, frame.f_lineno)
        frame = frame.f_back


def _awaits(coroutine: Any) -> Iterator[_Step]:
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return
        yield _step(frame.f_code, frame.f_lineno)
        coroutine = getattr(coroutine, "cr_await", None)


def _traceback(error: BaseException) -> Iterator[_Step]:
    entry = error.__traceback__
    while entry is not None:
        yield _step(entry.tb_frame.f_code, entry.tb_lineno)
        entry = entry.tb_next


def _step(code: CodeType, line: int) -> _Step:
    return code.co_filename, line, code.co_qualname.rpartition("<locals>.")[2]
