"""`MemoryStore`: the store contract in one process, with a clock that tests can move."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from copy import deepcopy
from typing import Any

from fluvial.errors import InvalidRequestError
from fluvial.stream_entries import MAX_CHUNKS
from fluvial_queue.bells import LOST, BellQueue
from fluvial_queue.checks import check_entries, check_partition, check_run_id, check_values
from fluvial_queue.contract import (
    DEFAULT_PARTITIONS,
    DEFAULT_RETENTION_MS,
    Bell,
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    CommitReply,
    DeleteOutcome,
    Durability,
    FiredTimers,
    Lease,
    Pulse,
    Record,
    RecordKind,
    RunPage,
    RunQuery,
    RunRecord,
    RunStatus,
    SendOutcome,
    SingletonClaim,
    StartOutcome,
    StartRun,
    StoredMessage,
    message_order,
)
from fluvial_queue.cursors import format_cursor, matches, parse_cursor
from fluvial_queue.hook_contract import CLOSED, FoundHook, OpenHook
from fluvial_queue.memory import retirement
from fluvial_queue.memory.singletons import MemoryClaimBoard
from fluvial_queue.memory.state import Backend, Run, apply_entry, refusal
from fluvial_queue.messages import deadline_body, start_body
from fluvial_queue.retirement_contract import Counts, DeploymentUse
from fluvial_queue.singletons import claim_singleton
from fluvial_queue.stream_contract import (
    DEFAULT_STREAM_BYTES,
    Append,
    AppendAnswer,
    AppendOutcome,
    StreamPage,
    StreamRecord,
    check_append,
    check_page,
)

_EPOCH = CommitAnswer(CommitOutcome.EPOCH)


def wall_clock_ms() -> int:
    """Return the host's time."""
    return time.time_ns() // 1_000_000


class MemoryStore:
    """A client of a memory backend. Its docstrings are those of `Store`."""

    def __init__(
        self,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
        partitions: int = DEFAULT_PARTITIONS,
        retention_ms: int = DEFAULT_RETENTION_MS,
        stream_bytes: int = DEFAULT_STREAM_BYTES,
        backend: Backend | None = None,
    ) -> None:
        """With `backend`, the other arguments are not used: they are the backend's."""
        self.backend = backend or Backend(now_ms, partitions, retention_ms, stream_bytes)
        self._listeners: list[BellQueue] = []
        self._is_closed = False

    def view(self) -> MemoryStore:
        """Return another client of the same data."""
        return MemoryStore(backend=self.backend)

    @property
    def partitions(self) -> int:
        return self.backend.partition_count

    @property
    def durability(self) -> Durability:
        return "memory"

    async def open(self) -> None:
        self._is_closed = False

    async def close(self) -> None:
        self._is_closed = True
        for listener in self._listeners:
            listener.close()

    async def now_ms(self) -> int:
        return self.backend.clock()

    # ---- ownership ----

    async def acquire(self, partition: int, *, owner: str, ttl_ms: int) -> Lease | None:
        check_partition(partition, self.partitions)
        _check_ttl(ttl_ms)
        now_ms = self.backend.clock()
        state = self.backend.partition(partition)
        if now_ms < state.until_ms and state.owner != owner:
            return None
        state.epoch += 1
        state.nonce, state.owner = secrets.token_hex(8), owner
        state.until_ms = now_ms + ttl_ms
        rested, state.rested = state.rested, 0
        return Lease(partition, state.epoch, state.nonce, rested)

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Pulse]:
        _check_ttl(ttl_ms)
        return [self._renew(lease, ttl_ms) for lease in leases]

    def _renew(self, lease: Lease, ttl_ms: int) -> Pulse:
        now_ms = self.backend.clock()
        state = self.backend.partition(lease.partition)
        if not state.is_current(lease, now_ms):
            return Pulse(False, None, "")
        state.until_ms = now_ms + ttl_ms
        last = "" if state.last_id == (0, 0) else "{}-{}".format(*state.last_id)
        return Pulse(True, state.next_timer_ms(), last)

    async def release(self, lease: Lease, *, rested: bool = False) -> None:
        state = self.backend.partition(lease.partition)
        if state.is_current(lease, self.backend.clock()):
            state.until_ms, state.nonce = 0, ""
            state.rested = lease.epoch if rested else 0

    async def lease_owner(self, partition: int) -> str | None:
        check_partition(partition, self.partitions)
        state = self.backend.partition(partition)
        return state.owner if self.backend.clock() < state.until_ms else None

    # ---- the owner's work ----

    async def window(self, lease: Lease, *, after: str, limit: int) -> list[StoredMessage] | None:
        state = self.backend.partition(lease.partition)
        if not state.is_current(lease, self.backend.clock()):
            return None
        return state.window(after, limit)

    async def fire_timers(self, lease: Lease, *, limit: int) -> FiredTimers | None:
        now_ms = self.backend.clock()
        state = self.backend.partition(lease.partition)
        if not state.is_current(lease, now_ms):
            return None
        due = sorted((t[0], body, t[1]) for body, t in state.timers.items() if t[0] <= now_ms)
        messages: list[StoredMessage] = []
        for _, body, run_id in due[:limit]:
            run = self.backend.runs[run_id]
            del state.timers[body]
            run.timers.discard(body)
            message_id = state.add(run, lease.epoch, body, now_ms)
            messages.append(state.messages[message_id])
        return FiredTimers(tuple(messages), state.next_timer_ms(), now_ms)

    async def commit(self, lease: Lease, entries: Sequence[CommitEntry]) -> CommitReply:
        check_entries(lease, entries)
        now_ms = self.backend.clock()
        if not self.backend.partition(lease.partition).is_current(lease, now_ms):
            return CommitReply((_EPOCH,) * len(entries), now_ms)
        refused: dict[str, CommitAnswer] = {}
        answers = [self._commit(lease, entry, refused, now_ms) for entry in entries]
        return CommitReply(tuple(answers), now_ms)

    def _commit(
        self, lease: Lease, entry: CommitEntry, refused: dict[str, CommitAnswer], now_ms: int
    ) -> CommitAnswer:
        run = self.backend.run(entry.run_id)
        answer = refused.get(entry.run_id) or refusal(run, entry)
        if answer is not None or run is None:
            assert answer is not None
            refused[entry.run_id] = answer
            return answer
        partition = self.backend.partition(lease.partition)
        ids = apply_entry(partition, run, entry, lease.epoch, now_ms)
        if run.status.is_terminal and entry.status is not None:
            self.backend.ring(Bell("finished", run_id=entry.run_id))
        return CommitAnswer(CommitOutcome.OK, ids)

    # ---- everybody's work ----

    async def start(self, run: StartRun) -> StartOutcome:
        partition = check_run_id(run.run_id, self.partitions)
        check_values((run.input,))
        existing = self.backend.run(run.run_id)
        if existing is not None:
            ours, theirs = run.fingerprint, existing.start.fingerprint
            is_other = ours != theirs and bool(ours) and bool(theirs)
            return StartOutcome.CONFLICT if is_other else StartOutcome.DUPLICATE
        now_ms = self.backend.clock()
        if run.not_after_ms is not None and now_ms > run.not_after_ms:
            return StartOutcome.LATE
        if not retirement.lets_in(
            self.backend, partition, run.deployment, is_carried=run.is_carried
        ):
            return StartOutcome.RETIRED
        created = Run(
            deepcopy(run), now_ms, input=run.input, tags=dict(run.tags), log=list(run.log)
        )
        created.turn = run.turn
        self.backend.runs[run.run_id] = created
        body = start_body(run.run_id)
        if run.delay_ms:
            self._set_timer(partition, created, run.delay_ms, body)
        else:
            self._add(partition, created, body)
        if run.deadline_ms is not None:
            self._set_timer(partition, created, run.deadline_ms, deadline_body(run.run_id))
        return StartOutcome.ACCEPTED

    def _set_timer(self, partition: int, run: Run, delay_ms: int, body: bytes) -> None:
        due_ms = self.backend.clock() + delay_ms
        self.backend.partition(partition).timers[body] = due_ms, run.start.run_id
        run.timers.add(body)
        self.backend.ring(Bell("timer", partition=partition, due_ms=due_ms))

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
        partition = check_run_id(run_id, self.partitions)
        check_values((body,))
        run = self.backend.run(run_id)
        if run is None:
            return SendOutcome.UNKNOWN
        if run.status.is_terminal:
            return SendOutcome.CLOSED
        if (token or "", resume_id) in run.resumes:
            return SendOutcome.DUPLICATE
        if token is not None and run.hooks.get(token) is None:
            return SendOutcome.CLOSED if token in run.hooks else SendOutcome.UNKNOWN
        if token is not None and hook is not None and run.hooks[token] != hook:
            return SendOutcome.CLOSED
        if resume_id:
            run.resumes.add((token or "", resume_id))
        self._add(partition, run, body)
        return SendOutcome.ACCEPTED

    def _add(self, partition: int, run: Run, body: bytes) -> None:
        self.backend.partition(partition).add(run, 0, body, self.backend.clock())
        self.backend.ring(Bell("messages", partition=partition))

    async def delete_run(self, run_id: str) -> DeleteOutcome:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        if run is None:
            return DeleteOutcome.UNKNOWN
        if not run.status.is_terminal or run.effects:
            return DeleteOutcome.OPEN
        del self.backend.runs[run_id]
        return DeleteOutcome.DELETED

    async def claim_token(self, app: str, token: str, run_id: str) -> str:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        if run is not None and run.has_closed(token):
            del run.hooks[token]  # it is about to be opened again
        holder = self.backend.claims.get((app, token))
        if holder is not None and holder != run_id and not self.backend.is_void(holder, token):
            return holder
        self.backend.claims[app, token] = run_id
        return run_id

    async def claim_singleton(
        self, app: str, key: str, run_id: str, *, replaces: str = ""
    ) -> SingletonClaim:
        check_run_id(run_id, self.partitions)
        board = MemoryClaimBoard(self.backend)
        return await claim_singleton(board, app, key, run_id, replaces=replaces)

    async def token_holder(self, app: str, token: str) -> str | None:
        return self.backend.claims.get((app, token))

    async def read_run(self, run_id: str) -> RunRecord | None:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        return None if run is None else run.record()

    async def read_events(self, run_id: str, *, start: int = 0, limit: int = 1000) -> list[bytes]:
        check_run_id(run_id, self.partitions)
        if start < 0 or limit < 1:
            raise InvalidRequestError(f"start {start} or limit {limit} is too small")
        run = self.backend.run(run_id)
        return [] if run is None else run.log[start : start + limit]

    async def open_hooks(self, run_id: str) -> dict[str, OpenHook]:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        hooks = {} if run is None else run.hooks
        return {token: hook for token, hook in hooks.items() if hook is not None}

    async def find_hook(self, run_id: str, token: str) -> FoundHook:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        if run is None or token not in run.hooks:
            return None
        return run.hooks[token] or CLOSED

    async def has_resumed(self, run_id: str, token: str, resume_id: str) -> bool:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        return run is not None and (token, resume_id) in run.resumes

    async def query_runs(self, query: RunQuery) -> RunPage:
        if query.limit < 1:
            raise InvalidRequestError(f"limit must be at least 1, got {query.limit}")
        before = None if query.cursor is None else parse_cursor(query.cursor)
        runs = [run.record() for run in map(self.backend.run, list(self.backend.runs)) if run]
        found = [
            run
            for run in sorted(runs, key=lambda r: (r.created_ms, r.run_id), reverse=True)
            if before is None or (run.created_ms, run.run_id) < before
            if query.since_ms is None or run.created_ms >= query.since_ms
            if query.until_ms is None or run.created_ms < query.until_ms
            if query.deployment in (None, run.deployment)
            if matches(query, run.run_id, run.app, run.workflow, run.status, run.tags, run.meta)
        ]
        page = found[: query.limit]
        last = page[-1] if len(page) < len(found) else None
        cursor = None if last is None else format_cursor((last.created_ms, last.run_id))
        return RunPage(tuple(page), cursor)

    async def count_runs(self) -> dict[tuple[str, RunStatus], int]:
        runs = self.backend.runs.values()
        return dict(Counter((r.start.app, r.status) for r in runs if not r.status.is_terminal))

    async def bells(self) -> AsyncGenerator[Bell, None]:
        queue = BellQueue()
        queue.is_closed = self._is_closed
        queue.ring(LOST)
        self._listeners.append(queue)
        self.backend.listeners.append(queue)
        try:
            while not queue.is_closed:
                while (bell := queue.take()) is not None:
                    yield bell
                await queue.wait()
        finally:
            self._listeners.remove(queue)
            self.backend.listeners.remove(queue)

    # ---- streams ----

    async def append_stream(self, append: Append) -> AppendAnswer:
        check_run_id(append.run_id, self.partitions)
        check_append(append)
        run = self.backend.run(append.run_id)
        if run is None:
            return AppendAnswer(AppendOutcome.UNKNOWN)
        if run.status.is_terminal:
            return AppendAnswer(AppendOutcome.CLOSED)
        if append.writer.message_id not in run.messages:
            return AppendAnswer(AppendOutcome.STALE)
        answer = run.streams.append(append, self.backend.clock(), self.backend.stream_bytes)
        if answer.outcome is AppendOutcome.ACCEPTED:
            self.backend.ring(Bell("stream", run_id=append.run_id))
        return answer

    async def read_stream(
        self, run_id: str, name: str, *, start: int, limit: int = MAX_CHUNKS
    ) -> StreamPage | None:
        check_run_id(run_id, self.partitions)
        check_page(name, limit)
        run = self.backend.run(run_id)
        if run is None:
            return None
        return run.streams.read(run.start.app, name, start, limit, has_ended=run.status.is_terminal)

    async def list_streams(self, run_id: str) -> list[StreamRecord] | None:
        check_run_id(run_id, self.partitions)
        run = self.backend.run(run_id)
        return None if run is None else run.streams.records(has_ended=run.status.is_terminal)

    # ---- deployments that are to be deleted ----

    async def retire_deployment(self, deployment: str) -> Counts:
        return retirement.retire(self.backend, deployment)

    async def reinstate_deployment(self, deployment: str) -> None:
        retirement.reinstate(self.backend, deployment)

    async def deployment_uses(self, deployments: Collection[str]) -> dict[str, DeploymentUse]:
        return retirement.uses(self.backend, deployments)

    async def close_deployment(self, deployment: str, counts: Counts) -> bool:
        return retirement.close(self.backend, deployment, counts)

    # ---- records ----

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        existing = self.backend.records.get((kind, record_id))
        version = 0 if existing is None else existing.version
        if expect not in (None, version):
            return None
        self.backend.records[kind, record_id] = Record(record_id, version + 1, deepcopy(value))
        return version + 1

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None:
        return deepcopy(self.backend.records.get((kind, record_id)))

    async def list_records(self, kind: RecordKind) -> list[Record]:
        records = sorted(self.backend.records.items())
        return [deepcopy(record) for (of_kind, _), record in records if of_kind == kind]

    async def delete_record(self, kind: RecordKind, record_id: str) -> bool:
        return self.backend.records.pop((kind, record_id), None) is not None

    # ---- numbers ----

    async def depth(self, partitions: Sequence[int]) -> tuple[int, int]:
        states = [self.backend.partition(partition) for partition in partitions]
        return sum(len(s.messages) for s in states), sum(len(s.timers) for s in states)

    async def oldest_message_ms(self, partitions: Sequence[int]) -> int | None:
        states = [self.backend.partition(partition) for partition in partitions]
        firsts = [next(iter(state.messages)) for state in states if state.messages]
        return min((message_order(first)[0] for first in firsts), default=None)


def _check_ttl(ttl_ms: int) -> None:
    if ttl_ms < 1:
        raise InvalidRequestError(f"ttl_ms must be at least 1, got {ttl_ms}")
