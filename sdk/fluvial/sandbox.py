"""How a refusal of workflow code reads: what it tried, in which line, and what to do instead."""

from __future__ import annotations

import sys
from types import FrameType

from fluvial.errors import WorkflowSandboxError
from fluvial.origins import DRIVER, Origin, origin_of


def refusal(what: str, instead: str = "move this into a step") -> WorkflowSandboxError:
    """Return the error for `what`, naming the line of user code that is running."""
    return WorkflowSandboxError(
        f"{user_line()}: workflow code must be repeatable and cannot use {what}; {instead}"
    )


def user_line() -> str:
    """Return `file:line` of the innermost line of the user's own code; where there is none on the
    way, of an installed package's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    installed = ""
    while frame is not None and frame.f_code.co_qualname != DRIVER:  # who drives is not to blame
        filename = frame.f_code.co_filename
        origin = origin_of(filename)
        if origin is Origin.USER:
            return f"{filename}:{frame.f_lineno}"
        if origin is Origin.INSTALLED and not installed:
            installed = f"{filename}:{frame.f_lineno}"
        frame = frame.f_back
    return installed or "workflow code"
