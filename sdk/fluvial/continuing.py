"""`continue_as_new`: end a run and go on as a new one, with an empty log."""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from fluvial.errors import NotInWorkflowError
from fluvial.loop import current_loop
from fluvial.signatures import encode_call


class Continuation(BaseException):
    """Ends a workflow that goes on as a new run. Not an Exception: no handler of errors is meant.

    `finally` blocks run, durably, before the run ends.
    """

    def __init__(self, plaintext: bytes, *, latest: bool) -> None:
        super().__init__("the workflow goes on as a new run")
        self.plaintext = plaintext
        self.latest = latest


def continue_as_new(
    *args: Any, deployment: Literal["pinned", "latest"] = "pinned", **kwargs: Any
) -> NoReturn:
    """End this run; a new run of the same workflow begins with these arguments.

    For workflows that go on for ever: the log begins anew, tags, deadline, priority, retention and
    parent stay, open hooks are closed, children are closed as their policy says. Whoever waits for
    this run's result waits for that of the last one. Call it from the workflow's own task.

    Args:
        deployment: "latest" moves on to the app's production deployment.

    Raises:
        NotInWorkflowError: no workflow is running here.
        SerializationError: an argument cannot be stored; the path names it.
    """
    if current_loop() is None:
        raise NotInWorkflowError("continue_as_new() works in workflows only")
    raise Continuation(encode_call(args, kwargs), latest=deployment == "latest")
