"""How a refusal of workflow code reads: what it tried, in which line, and what to do instead."""

from __future__ import annotations

import sys
from types import FrameType

from fluvial.errors import WorkflowSandboxError
from fluvial.places import is_library


def refusal(what: str, instead: str = "move this into a step") -> WorkflowSandboxError:
    """Return the error for `what`, naming the line of user code that is running."""
    return WorkflowSandboxError(
        f"{user_line()}: workflow code must be repeatable and cannot use {what}; {instead}"
    )


def user_line() -> str:
    """Return `file:line` of the innermost frame that is not the library's or Fluvial's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    while frame is not None:
        filename = frame.f_code.co_filename
        if not is_library(filename):
            return f"{filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "workflow code"
