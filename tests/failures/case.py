"""One way in which a program can fail, and what is seen of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AppKind = Literal["loop", "threads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What everybody saw of a failure."""

    caller: str  # who sent the request that failed
    safe_neighbour: str  # a GET under way in the same instance
    unsafe_neighbour: str  # a POST under way there
    instance: str  # "goes on", or why it ended
    log: str  # who the app's log says it was
    afterwards: str  # the next request


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program, and what is expected when an invocation executes it."""

    name: str
    program: str  # the body of a function: async in the app "loop", in a thread in "threads"
    expected: Seen
    logged: str = ""  # what the app's log says of it
    app: AppKind = "loop"
    is_slow: bool = False  # found out by a deadline: it needs an app with a short one
    ends_later: bool = False  # the instance, some time after everybody was answered
    leaves_traces: bool = False  # in the interpreter: the next case needs another instance
