"""The store contract: what every store promises, in values and one Protocol.

Invariants (DESIGN calls them by number; the contract suite tests each on every implementation):

1.  A commit entry is atomic: all of its effects happen or none does. Entries of one call are
    applied in order; a refused entry has no effect, and later entries *of the same run* in the
    same call are refused with the same answer.
2.  An entry is refused, in this order of checks, with
    EPOCH     the lease's (epoch, nonce) is not the partition's current one, or it has expired by
              the store's clock;
    GONE      the run does not exist, or is terminal and the entry does more than delete
              messages, or one of the `handled` messages does not exist any more (it was handled,
              or is another run's);
    SEQUENCE  the length of the run's log is not `base`.
3.  A message exists from the moment it was added until the entry that handles it is applied. After
    any crash the stored messages are exactly the outstanding work.
4.  Every acquire of a partition increments its epoch, also by the same owner; epochs never restart.
5.  A timer becomes a message in one atomic move, never before it is due by the store's clock.
6.  `start` and `send` check and add in one atomic operation, and answer what they did.
7.  A raised `OutcomeUnknownError` means that the operation may or may not have happened. A commit
    must then be repeated unchanged until its answer is definite (GONE = it had been applied).
8.  Terminal is final: once a run's status is terminal, its timers, hooks and messages are gone,
    and `send` answers CLOSED. Only its *effects* stay, the messages that ask for something in
    another run, until they are handled; the retention begins when the last of them is.
9.  Times are Unix milliseconds of the store's clock. No operation uses the caller's clock.

A store is used from one event loop. A cancelled await never leaves the store's connection in
doubt: the operation goes on and its answer is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from fluvial.errors import FluvialError, UnavailableError
from fluvial_queue.hook_contract import HookStore, OpenHook
from fluvial_queue.retirement_contract import RetirementStore
from fluvial_queue.stream_contract import StreamStore

DEFAULT_PARTITIONS = 64
MAX_VALUE_BYTES = 32 * 1024 * 1024  # one event, message or record
DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000  # finished runs

Durability = Literal["memory", "process", "disk", "replicated"]
"""What an acknowledged write survives: nothing; the store's process; power loss; losing a node."""


class StoreError(FluvialError):
    """A store refused or failed an operation."""

    code = "store_error"


class StoreUnavailableError(StoreError, UnavailableError):
    """The store cannot be reached or refuses to write; nothing was written."""

    code = "store_unavailable"
    retryable = True


class StoreFullError(StoreUnavailableError):
    """The store has no room for new work; what is under way still goes on."""

    code = "store_full"


class OutcomeUnknownError(StoreError, UnavailableError):
    """The connection broke before the answer came: the operation may have happened."""

    code = "store_outcome_unknown"
    retryable = True


class UnsafeStoreError(StoreError):
    """The store's settings would lose data; the message names the setting and the fix."""

    code = "store_unsafe"


class RunStatus(StrEnum):
    """Where a run stands."""

    PENDING = "pending"  # accepted, RUN_STARTED not yet in the log
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    CONTINUED = "continued"  # ended by continue_as_new: another run goes on in its place

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        RunStatus.COMPLETED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.TERMINATED,
        RunStatus.CONTINUED,
    }
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be a partition's one owner; epoch and nonce are compared on every commit.

    `rested_epoch`: the owner of that epoch left nothing running, so of the messages up to it none
    has been started; 0 if the last owner did not say so.
    """

    partition: int
    epoch: int
    nonce: str
    rested_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a renewal of one lease answers."""

    held: bool
    next_timer_ms: int | None  # when the partition's next timer is due; None: it has none
    last_message_id: str  # the id of the newest message ever added; "" if none


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """An outstanding queue entry. `epoch` is the owner's that added it, by a commit or as a due
    timer; 0: nobody's (start, send). Ids sort (by `message_order`) in the order in which messages
    were added."""

    id: str
    epoch: int
    body: bytes


def message_order(message_id: str) -> tuple[int, int]:
    """A sort key for message ids: ids look like `<number>-<number>`."""
    high, _, low = message_id.partition("-")
    return int(high), int(low)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEntry:
    """One hand-off: everything that one handled message changes, applied atomically."""

    run_id: str
    handled: tuple[str, ...]  # message ids; all must exist; all are deleted
    base: int  # the expected length of the run's log
    events: tuple[bytes, ...] = ()  # appended to the log
    messages: tuple[bytes, ...] = ()  # bodies to add, with the lease's epoch
    timers: tuple[tuple[int, bytes], ...] = ()  # (delay in ms from now, body of the message)
    drop_timers: tuple[bytes, ...] = ()  # before `timers` are set
    open_hooks: tuple[tuple[str, OpenHook], ...] = ()  # by token
    close_hooks: tuple[str, ...] = ()  # before `open_hooks` are opened
    status: RunStatus | None = None  # None: unchanged
    turn: bytes | None = None  # an opaque value kept on the run record; None: unchanged
    deployment: str | None = None  # where the run goes on from now; None: unchanged
    effects: tuple[bytes, ...] = ()  # bodies to add behind `messages`; they outlive the run's end
    tags: Mapping[str, str] | None = None  # all tags of the run from now on; None: unchanged
    reason: str | None = None  # why the run is paused; None: unchanged
    state_at: int | None = None  # where the log has the run's published state; None: unchanged

    @property
    def only_deletes(self) -> bool:
        """Whether it does nothing but delete messages: all that a run that has ended takes."""
        return not (
            self.events
            or self.messages
            or self.effects
            or self.timers
            or self.open_hooks
            or self.status
            or self.turn is not None
            or self.tags is not None
            or self.reason is not None
            or self.state_at is not None
            or self.deployment is not None
        )


class CommitOutcome(StrEnum):
    OK = "ok"
    EPOCH = "epoch"
    GONE = "gone"
    SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """The answer to one entry; `message_ids` are those of `entry.messages`, then those of
    `entry.effects`, in order."""

    outcome: CommitOutcome
    message_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The answers to a group, in order, and the store's time when they were applied."""

    answers: tuple[CommitAnswer, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class FiredTimers:
    """The messages that due timers became, and when the next one is due."""

    messages: tuple[StoredMessage, ...]
    next_timer_ms: int | None
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """A run to create, with its START message."""

    run_id: str
    app: str
    workflow: str
    deployment: str
    input: bytes  # sealed
    key: str = ""
    fingerprint: bytes = b""  # of the plain input; compared only where both sides have one
    meta: dict[str, Any] = field(default_factory=dict[str, Any])  # small, in clear
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    delay_ms: int = 0  # how long the START message waits, as a timer
    deadline_ms: int | None = None  # after so long the run is cancelled; None: never
    retention_ms: int | None = None  # how long it stays once it has ended; None: the store's
    not_after_ms: int | None = None  # it is refused as LATE from then on; None: never
    log: tuple[bytes, ...] = ()  # what the log holds from the beginning, where a run is forked
    turn: bytes = b""  # of the run record
    is_carried: bool = False  # a run has asked for it: also where its deployment is retired


@dataclass(frozen=True, slots=True)
class SingletonClaim:
    """Who holds a singleton; whoever has just claimed it must start its run `start_before_ms`."""

    holder: str  # a run id
    start_before_ms: int = 0


class StartOutcome(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # the run exists with the same fingerprint (or one has none)
    CONFLICT = "conflict"  # the run exists with another fingerprint
    LATE = "late"  # it does not exist, and `not_after_ms` is over
    RETIRED = "retired"  # it does not exist, and its deployment is to be deleted


class SendOutcome(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # this resume id was accepted before
    UNKNOWN = "unknown"  # no such run, or no such open hook
    CLOSED = "closed"  # the run is terminal, or the hook was closed


class DeleteOutcome(StrEnum):
    DELETED = "deleted"
    UNKNOWN = "unknown"  # no such run
    OPEN = "open"  # it has not ended, or what it asked of other runs is not done yet


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run without its log: a projection that every commit keeps up to date."""

    run_id: str
    app: str
    workflow: str
    deployment: str
    status: RunStatus
    created_ms: int
    finished_ms: int | None
    key: str
    fingerprint: bytes
    input: bytes  # sealed; empty once RUN_STARTED is in the log
    turn: bytes  # what the last commit with a `turn` said; empty before
    events: int  # the length of the log
    meta: dict[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    reason: str = ""  # why it is paused; empty while it is not
    retention_ms: int | None = None  # how long it stays once it has ended; None: the store's
    state_at: int | None = None  # where its log has what it published last; None: nothing yet


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs to list, newest first."""

    app: str | None = None
    workflow: str | None = None
    statuses: frozenset[RunStatus] | None = None
    since_ms: int | None = None  # created at or after
    until_ms: int | None = None  # created before
    tags: Mapping[str, str] = field(default_factory=dict[str, str])  # all of them
    deployment: str | None = None
    parent: str | None = None  # the run that started it as its child
    root: str | None = None  # itself, or the run with which its family began
    limit: int = 50
    cursor: str | None = None  # from a page; stable while runs are added


@dataclass(frozen=True, slots=True)
class RunPage:
    runs: tuple[RunRecord, ...]
    cursor: str | None  # None: this was the last page


@dataclass(frozen=True, slots=True)
class Bell:
    """A doorbell: a hint, never the only way to learn of something.

    `messages`: something was added to `partition` by somebody who is not its owner.
    `timer`: a timer that is due at `due_ms` was added to `partition`, likewise.
    `finished`: the run `run_id` became terminal.
    `stream`: something was added to a stream of the run `run_id`, or one was closed.
    `lost`: the subscription broke and was made anew; whoever waits must look now. Also the first
    bell of every subscription: from then on nothing is missed.
    """

    kind: Literal["messages", "timer", "finished", "stream", "lost"]
    partition: int = -1
    run_id: str = ""
    due_ms: int = 0


RecordKind = Literal[
    "app",
    "deployment",
    "token",
    "host",
    "setting",
    "cron",
    "history",
    "removed",
    "environment",
    "usage",
]


@dataclass(frozen=True, slots=True)
class Record:
    """A small document (deployments, apps, tokens): `version` counts its writes from 1."""

    id: str
    version: int
    value: dict[str, Any]


class Store(HookStore, RetirementStore, StreamStore, Protocol):
    """Where event logs, messages, timers, hooks, streams and records live."""

    @property
    def partitions(self) -> int:
        """How many partitions this store was created with; fixed for its life."""
        ...

    @property
    def durability(self) -> Durability: ...

    async def open(self) -> None:
        """Connect, check the settings, create or read the number of partitions.

        Raises:
            UnsafeStoreError, StoreUnavailableError
        """
        ...

    async def close(self) -> None: ...

    async def now_ms(self) -> int: ...

    # ---- ownership ----

    async def acquire(self, partition: int, *, owner: str, ttl_ms: int) -> Lease | None:
        """Become the owner of a partition that is free, expired, or held under the same `owner`
        name (a program that was restarted takes its own partitions back at once; the epoch fences
        its former self). None: somebody else holds it."""
        ...

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Pulse]: ...

    async def release(self, lease: Lease, *, rested: bool = False) -> None:
        """Give a partition up, so that the next owner need not wait; a stale lease is ignored.

        With `rested`, no outstanding message has been dispatched, or every invocation is over and
        its result committed: the next owner (and only that one) is told by `rested_epoch`."""
        ...

    async def lease_owner(self, partition: int) -> str | None:
        """Return the name under which a partition is owned now; None: nobody owns it."""
        ...

    # ---- the owner's work ----

    async def window(self, lease: Lease, *, after: str, limit: int) -> list[StoredMessage] | None:
        """Return up to `limit` outstanding messages with ids above `after` ("" = from the start),
        oldest first; None if the lease is not current. Ordered with commits: the answer reflects
        every commit whose call began before this one."""
        ...

    async def fire_timers(self, lease: Lease, *, limit: int) -> FiredTimers | None:
        """Turn up to `limit` due timers into messages; None if the lease is not current."""
        ...

    async def commit(self, lease: Lease, entries: Sequence[CommitEntry]) -> CommitReply:
        """Apply a group of entries of one partition in one atomic operation each.

        Raises:
            OutcomeUnknownError: repeat it unchanged.
            StoreUnavailableError: nothing was written; repeat it later.
        """
        ...

    # ---- everybody's work ----

    async def start(self, run: StartRun) -> StartOutcome: ...

    async def send(
        self,
        run_id: str,
        body: bytes,
        *,
        token: str | None = None,
        hook: OpenHook | None = None,
        resume_id: str = "",
        urgent: bool = False,
    ) -> SendOutcome:
        """Add a message to a run; with `token` only if that hook is open, once per `resume_id`.

        `hook`: only if that is the one which is open under the token; another: CLOSED.
        `urgent`: also where the store has no room for new work, as it helps to make room."""
        ...

    async def delete_run(self, run_id: str) -> DeleteOutcome:
        """Remove a run that has ended, with its log, at once and for good."""
        ...

    async def claim_singleton(
        self, app: str, key: str, run_id: str, *, replaces: str = ""
    ) -> SingletonClaim:
        """Claim that `run_id`, about to be started, is the app's one live run for `key`; return who
        holds the claim then. A claim of the run `replaces` gives way."""
        ...

    async def read_run(self, run_id: str) -> RunRecord | None: ...

    async def read_events(self, run_id: str, *, start: int = 0, limit: int = 1000) -> list[bytes]:
        """Return up to `limit` events from position `start` of the log."""
        ...

    async def query_runs(self, query: RunQuery) -> RunPage: ...

    async def count_runs(self) -> dict[tuple[str, RunStatus], int]:
        """Return how many runs are open (not terminal) by (app, status); at most a sweep old."""
        ...

    def bells(self) -> AsyncIterator[Bell]:
        """Subscribe to the doorbells; ends when the store is closed."""
        ...

    # ---- records ----

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        """Write a record and return its new version. With `expect`, only if its current version is
        `expect` (0 = it does not exist); None: it was another."""
        ...

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None: ...

    async def list_records(self, kind: RecordKind) -> list[Record]: ...

    async def delete_record(self, kind: RecordKind, record_id: str) -> bool: ...

    # ---- numbers ----

    async def depth(self, partitions: Sequence[int]) -> tuple[int, int]:
        """Return (outstanding messages, timers) over `partitions`."""
        ...

    async def oldest_message_ms(self, partitions: Sequence[int]) -> int | None:
        """Return when the oldest outstanding message of `partitions` was added; None: there is
        none."""
        ...
