"""What an owner has asked for and what has not happened yet: the things that can happen next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fluvial.invocations import Answer
from fluvial_queue.contract import CommitEntry, StoredMessage
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message
from fluvial_queue.views import RunView


@dataclass(slots=True, eq=False)
class _Asked:
    """Something that was asked for."""

    number: int = field(default=0, kw_only=True)  # counts what was asked for, of all owners


@dataclass(slots=True, eq=False)
class Reading(_Asked):
    """Look for messages that others have added."""


@dataclass(slots=True, eq=False)
class Offering(_Asked):
    """Hear of the messages that were read first."""


@dataclass(slots=True, eq=False)
class Firing(_Asked):
    """Turn due timers into messages."""


@dataclass(slots=True, eq=False)
class Loading(_Asked):
    """Read a run: its messages page by page where that is asked for, then its record and log."""

    run_id: str
    wants_messages: bool
    after: str = ""
    stored: list[StoredMessage] = field(default_factory=list[StoredMessage])
    has_messages: bool = False


@dataclass(slots=True, eq=False)
class Claiming(_Asked):
    """Claim hook tokens."""

    view: RunView
    tokens: Sequence[str]
    job: Job


@dataclass(slots=True, eq=False)
class Carrying(_Asked):
    """Do what an effect asks for in another run."""

    view: RunView
    message_id: str
    effect: Message


@dataclass(slots=True, eq=False)
class Committing(_Asked):
    """Apply a commit and take its answer in."""

    entry: CommitEntry
    was_applied: bool = False  # its reply was lost


@dataclass(slots=True, eq=False)
class Invoking(_Asked):
    """Begin an invocation."""

    job: Job


@dataclass(slots=True, eq=False)
class Answering(_Asked):
    """Take in the answer of an invocation."""

    job: Job
    answer: Answer
    instance: int
    invocation: str


Work = (
    Reading | Offering | Firing | Loading | Claiming | Carrying | Committing | Invoking | Answering
)
