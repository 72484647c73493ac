"""What a memory store holds, and the one algorithm that changes runs: `apply_entry`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fluvial_queue.bells import BellQueue
from fluvial_queue.contract import (
    DEFAULT_PARTITIONS,
    DEFAULT_RETENTION_MS,
    Bell,
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    Record,
    RunRecord,
    RunStatus,
    StartRun,
    StoredMessage,
    message_order,
)
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.memory.streams import RunStreams
from fluvial_queue.stream_contract import DEFAULT_STREAM_BYTES

_GONE = CommitAnswer(CommitOutcome.GONE)
_SEQUENCE = CommitAnswer(CommitOutcome.SEQUENCE)


@dataclass(slots=True)
class Run:
    """A run with everything that it owns."""

    start: StartRun
    created_ms: int
    deployment: str = ""  # where it goes on, if not where it was started
    status: RunStatus = RunStatus.PENDING
    finished_ms: int | None = None
    input: bytes = b""
    turn: bytes = b""
    reason: str = ""
    state_at: int | None = None
    tags: dict[str, str] = field(default_factory=dict[str, str])
    log: list[bytes] = field(default_factory=list[bytes])
    messages: set[str] = field(default_factory=set[str])
    effects: set[str] = field(default_factory=set[str])  # messages that outlive the run's end
    timers: set[bytes] = field(default_factory=set[bytes])
    hooks: dict[str, OpenHook | None] = field(
        default_factory=dict[str, OpenHook | None]
    )  # None: closed
    resumes: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    streams: RunStreams = field(default_factory=RunStreams)

    def has_closed(self, token: str) -> bool:
        """Return whether a hook with this token was open, and is no more."""
        return token in self.hooks and self.hooks[token] is None

    def record(self) -> RunRecord:
        """Return what a caller may see."""
        start = self.start
        return RunRecord(
            run_id=start.run_id,
            app=start.app,
            workflow=start.workflow,
            deployment=self.deployment or start.deployment,
            status=self.status,
            created_ms=self.created_ms,
            finished_ms=self.finished_ms,
            key=start.key,
            fingerprint=start.fingerprint,
            input=self.input,
            turn=self.turn,
            events=len(self.log),
            meta=dict(start.meta),
            tags=dict(self.tags),
            reason=self.reason,
            state_at=self.state_at,
            retention_ms=start.retention_ms,
        )


@dataclass(slots=True)
class Partition:
    """A partition's lease, messages (in the order of their ids) and timers."""

    epoch: int = 0
    nonce: str = ""
    owner: str = ""
    until_ms: int = 0
    rested: int = 0  # the epoch whose owner left nothing running
    last_id: tuple[int, int] = (0, 0)
    messages: dict[str, StoredMessage] = field(default_factory=dict[str, StoredMessage])
    timers: dict[bytes, tuple[int, str]] = field(
        default_factory=dict[bytes, tuple[int, str]]
    )  # body → when it is due, its run
    retired: dict[str, int] = field(default_factory=dict[str, int])  # as `Counts` says

    def is_current(self, lease: Lease, now_ms: int) -> bool:
        """Return whether a lease is the partition's one valid lease."""
        return (lease.epoch, lease.nonce) == (self.epoch, self.nonce) and now_ms < self.until_ms

    def add(
        self, run: Run, epoch: int, body: bytes, now_ms: int, *, is_effect: bool = False
    ) -> str:
        """Add a message of a run."""
        high, low = self.last_id
        self.last_id = (now_ms, 0) if now_ms > high else (high, low + 1)
        message_id = f"{self.last_id[0]}-{self.last_id[1]}"
        self.messages[message_id] = StoredMessage(message_id, epoch, body)
        (run.effects if is_effect else run.messages).add(message_id)
        return message_id

    def delete(self, run: Run, message_id: str) -> None:
        """Delete a message of a run, if it exists."""
        self.messages.pop(message_id, None)
        run.messages.discard(message_id)
        run.effects.discard(message_id)

    def next_timer_ms(self) -> int | None:
        """Return when the next timer is due."""
        return min((due_ms for due_ms, _ in self.timers.values()), default=None)

    def window(self, after: str, limit: int) -> list[StoredMessage]:
        """Return the oldest messages behind `after`."""
        first = message_order(after) if after else (-1, 0)
        found = (m for m in self.messages.values() if message_order(m.id) > first)
        return [message for message, _ in zip(found, range(limit), strict=False)]


@dataclass(slots=True)
class Backend:
    """The data that several `MemoryStore`s may share, as clients share a server."""

    clock: Callable[[], int]
    partition_count: int = DEFAULT_PARTITIONS
    retention_ms: int = DEFAULT_RETENTION_MS
    stream_bytes: int = DEFAULT_STREAM_BYTES
    listeners: list[BellQueue] = field(default_factory=list[BellQueue])
    partitions: dict[int, Partition] = field(default_factory=dict[int, Partition])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    claims: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    singletons: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    records: dict[tuple[str, str], Record] = field(default_factory=dict[tuple[str, str], Record])

    def ring(self, bell: Bell) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            listener.ring(bell)

    def partition(self, number: int) -> Partition:
        """Return a partition."""
        return self.partitions.setdefault(number, Partition())

    def run(self, run_id: str) -> Run | None:
        """Return a run, unless its retention is over."""
        run = self.runs.get(run_id)
        if run is None or run.finished_ms is None or run.effects:
            return run
        retention_ms = run.start.retention_ms
        if retention_ms is None:
            retention_ms = self.retention_ms
        if self.clock() < run.finished_ms + retention_ms:
            return run
        del self.runs[run_id]
        return None

    def is_void(self, run_id: str, token: str) -> bool:
        """Return whether a claim of a token by a run stands for nothing any more."""
        run = self.run(run_id)
        return run is None or run.status.is_terminal or run.has_closed(token)


def refusal(run: Run | None, entry: CommitEntry) -> CommitAnswer | None:
    """Return why an entry must be refused, the lease aside."""
    if run is None or (run.status.is_terminal and not entry.only_deletes):
        return _GONE
    if not all(message in run.messages or message in run.effects for message in entry.handled):
        return _GONE
    if len(run.log) != entry.base:
        return _SEQUENCE
    return None


def apply_entry(
    partition: Partition, run: Run, entry: CommitEntry, epoch: int, now_ms: int
) -> tuple[str, ...]:
    """Apply an entry that nothing refuses; return the ids of its messages."""
    for message_id in entry.handled:
        partition.delete(run, message_id)
    if entry.events:
        run.log.extend(entry.events)
        run.input = b""
    ids = [partition.add(run, epoch, body, now_ms) for body in entry.messages]
    ids += [partition.add(run, epoch, body, now_ms, is_effect=True) for body in entry.effects]
    for body in entry.drop_timers:
        _drop_timer(partition, run, body)
    for delay_ms, body in entry.timers:
        partition.timers[body] = now_ms + delay_ms, entry.run_id
        run.timers.add(body)
    for token in entry.close_hooks:
        if token in run.hooks:
            run.hooks[token] = None
    run.hooks.update(entry.open_hooks)
    run.status = entry.status or run.status
    run.turn = run.turn if entry.turn is None else entry.turn
    run.deployment = entry.deployment or run.deployment
    run.tags = run.tags if entry.tags is None else dict(entry.tags)
    run.reason = run.reason if entry.reason is None else entry.reason
    run.state_at = run.state_at if entry.state_at is None else entry.state_at
    if run.status.is_terminal and run.finished_ms is None:
        _finish(partition, run, now_ms)
    return tuple(ids)


def _drop_timer(partition: Partition, run: Run, body: bytes) -> None:
    run.timers.discard(body)
    partition.timers.pop(body, None)


def _finish(partition: Partition, run: Run, now_ms: int) -> None:
    """Remove everything that an ended run owns."""
    for message_id in list(run.messages):
        partition.delete(run, message_id)
    for body in list(run.timers):
        _drop_timer(partition, run, body)
    run.hooks.clear()
    run.resumes.clear()
    run.input = b""
    run.finished_ms = now_ms
