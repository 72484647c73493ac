"""Exit codes, and how an error becomes one message and one code.

0 done    1 the thing failed    2 usage    3 not found    4 not allowed
5 the platform is unreachable   6 timed out waiting       130 interrupted
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NoReturn, ParamSpec

import typer

from fluvial.errors import (
    AccessDeniedError,
    FluvialError,
    InvalidRequestError,
    ManifestError,
    UnavailableError,
)
from fluvial_deploy.cli.output import say_error

P = ParamSpec("P")


class ExitCode(IntEnum):
    """What the shell is told."""

    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5
    TIMED_OUT = 6
    INTERRUPTED = 130


_BY_STATUS: Final = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    502: ExitCode.UNREACHABLE,
    503: ExitCode.UNREACHABLE,
    504: ExitCode.TIMED_OUT,
}
_NEXT_STEP: Final = {
    "unauthenticated": "set FLUVIAL_TOKEN, or run it as the user who runs `fluvial up`",
    "access_denied": "make a token that may: `fluvial token create --scope …`",
    "app_not_found": "`fluvial apps ls` shows what is deployed",
    "deployment_not_found": "`fluvial deployments ls` shows what there is",
    "workflow_not_found": "`fluvial deployments show` lists a deployment's workflows",
    "run_not_found": "`fluvial runs ls` shows runs",
    "no_failed_step": "a paused run goes on with `fluvial runs resume`",
    "cron_not_found": "`fluvial crons ls` shows the crons of production deployments",
    "hook_not_found": "it may open later; `fluvial hooks ls` shows the open ones",
    "variable_not_found": "`fluvial env ls` shows an app's variables and secrets",
    "key_not_found": "`fluvial keys ls` shows an app's keys",
    "nothing_deployed": "deploy it, or promote a deployment: `fluvial promote`",
}


class CommandError(FluvialError):
    """A command ends with a message and a code of its own."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command so that an error becomes one message and its exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            _reader_has_enough()
        except (FluvialError, OSError) as error:
            if os.environ.get("FLUVIAL_DEBUG"):
                raise
            as_json = bool(kwargs.get("as_json"))
            say_error(_message(error), code=_code(error), as_json=as_json)
            raise typer.Exit(exit_code_of(error)) from None

    return run


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code that belongs to an error."""
    status = getattr(error, "status", None)
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(status, int):
        return _BY_STATUS.get(status, ExitCode.FAILED)
    if isinstance(error, UnavailableError):
        return ExitCode.UNREACHABLE
    if isinstance(error, AccessDeniedError):
        return ExitCode.NOT_ALLOWED
    if isinstance(error, InvalidRequestError) and not isinstance(error, ManifestError):
        return ExitCode.USAGE
    return ExitCode.FAILED


def _code(error: Exception) -> str:
    problem_code: Any = getattr(error, "problem_code", None) or getattr(error, "code", None)
    return str(problem_code or "error")


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, FluvialError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    step = _NEXT_STEP.get(_code(error))
    return f"{text}\n{step}" if step else text


def _reader_has_enough() -> NoReturn:
    """End quietly when whoever read our output (`| head`) has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(0)
