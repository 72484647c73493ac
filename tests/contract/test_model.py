"""Random histories: a store must do what a model of the contract says, step by step."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fluvial_queue import MemoryStore, Store, open_store
from fluvial_queue.contract import (
    CommitEntry,
    CommitOutcome,
    DeleteOutcome,
    Lease,
    RunQuery,
    RunStatus,
    SendOutcome,
    StartOutcome,
    StartRun,
    message_order,
)
from fluvial_queue.hook_contract import CLOSED as CLOSED_HOOK
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.redis.embedded import EmbeddedValkey

T = TypeVar("T")

PARTITION = 1
RUN_IDS = [f"run_01{letter * 24}" for letter in "abc"]
TOKENS = ["t", "u"]
HOUR_MS = 3_600_000
LEASE_MS = 600_000

_numbers = itertools.count(1)


@dataclass
class ModelRun:
    """What the contract says of one run."""

    fingerprint: bytes
    deployment: str
    status: RunStatus = RunStatus.PENDING
    log: list[bytes] = field(default_factory=list[bytes])
    turn: bytes = b""
    messages: dict[str, bytes] = field(default_factory=dict[str, bytes])
    effects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    reason: str = ""
    state_at: int | None = None
    timers: dict[bytes, int] = field(default_factory=dict[bytes, int])  # body → hours left
    hooks: dict[str, OpenHook | None] = field(default_factory=dict[str, OpenHook | None])
    resumes: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    @property
    def outstanding(self) -> dict[str, bytes]:
        return {**self.messages, **self.effects}

    def refusal(self, entry: CommitEntry) -> CommitOutcome | None:
        """Why a commit with a current lease is refused."""
        if self.status.is_terminal and not entry.only_deletes:
            return CommitOutcome.GONE
        if not self.outstanding.keys() >= set(entry.handled):
            return CommitOutcome.GONE
        return CommitOutcome.SEQUENCE if len(self.log) != entry.base else None

    def apply(self, entry: CommitEntry, ids: tuple[str, ...]) -> None:
        """Do what an accepted entry says."""
        for message_id in entry.handled:
            self.messages.pop(message_id, None)
            self.effects.pop(message_id, None)
        self.log += entry.events
        self.messages.update(zip(ids, entry.messages, strict=False))
        self.effects.update(zip(ids[len(entry.messages) :], entry.effects, strict=True))
        for body in entry.drop_timers:
            self.timers.pop(body, None)
        self.timers.update({body: delay_ms // HOUR_MS for delay_ms, body in entry.timers})
        self.hooks.update({token: None for token in entry.close_hooks if token in self.hooks})
        self.hooks.update(entry.open_hooks)
        self.status = entry.status or self.status
        self.turn = self.turn if entry.turn is None else entry.turn
        self.tags = self.tags if entry.tags is None else dict(entry.tags)
        self.reason = self.reason if entry.reason is None else entry.reason
        self.state_at = self.state_at if entry.state_at is None else entry.state_at
        self.deployment = entry.deployment or self.deployment
        if self.status.is_terminal:
            for owned in (self.messages, self.timers, self.hooks, self.resumes):
                owned.clear()

    def send(self, token: str | None, resume: str) -> SendOutcome:
        """What `send` must answer."""
        if self.status.is_terminal:
            return SendOutcome.CLOSED
        if resume and (token or "", resume) in self.resumes:
            return SendOutcome.DUPLICATE
        if token is not None and self.hooks.get(token) is None:
            return SendOutcome.CLOSED if token in self.hooks else SendOutcome.UNKNOWN
        return SendOutcome.ACCEPTED


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """What an entry may say, but for its guards."""
    few = st.integers(0, 2)
    return {
        "events": tuple(b"e%d" % i for i in range(draw(few))),
        "messages": tuple(b"m%d" % i for i in range(draw(few))),
        "timers": draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3)), max_size=2)),
        "drop_timers": draw(st.lists(st.integers(1, 3), max_size=1)),
        "open_hooks": tuple((token, draw(_open_hook)) for token in draw(_tokens)),
        "close_hooks": tuple(draw(_tokens)),
        "status": draw(_status),
        "turn": draw(st.sampled_from([None, None, b"t1", b"t2"])),
        "effects": tuple(b"x%d" % i for i in range(draw(st.sampled_from([0, 0, 1, 2])))),
        "tags": draw(st.sampled_from([None, None, None, {"a": "1"}, {}])),
        "reason": draw(st.sampled_from([None, None, None, "why", ""])),
        "state_at": draw(st.sampled_from([None, None, None, 0, 3])),
        "deployment": draw(st.sampled_from([None, None, "dpl_2", "dpl_3"])),
    }


_tokens = st.lists(st.sampled_from(TOKENS), max_size=1)
_open_hook = st.builds(OpenHook, st.integers(1, 9), st.integers(0, 9))
_status = st.sampled_from(
    [*[None] * 6, RunStatus.RUNNING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPLETED]
)
_guards = st.tuples(
    st.sampled_from(["one", "one", "all", "none", "old"]),  # which messages are handled
    st.sampled_from([0, 0, 0, 0, 1, -1]),  # how far `base` is off
)
_runs = st.sampled_from(RUN_IDS)
_Part = tuple[str, tuple[str, int], dict[str, Any]]


class StoreMachine(RuleBasedStateMachine):
    """Drives one partition of a store and the model beside it."""

    def __init__(self, store: Store, skip_hour: Callable[[], None] | None) -> None:
        super().__init__()
        self.store = store
        self.skip_hour = skip_hour
        self.loop = asyncio.Runner()
        self.runs: dict[str, ModelRun] = {}
        self.lease: Lease | None = None  # the current one
        self.stale: Lease | None = None
        self.epoch = 0
        self.old_ids: list[str] = ["1-1"]
        self.wait(store.open())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one operation to its end."""
        return self.loop.run(asyncio.wait_for(coroutine, 20))

    def teardown(self) -> None:
        self.wait(self.store.close())
        self.loop.close()

    # ---- ownership and time ----

    @rule()
    def acquire(self) -> None:
        self.stale = self.lease or self.stale
        self.lease = self.wait(self.store.acquire(PARTITION, owner="o", ttl_ms=LEASE_MS))
        self.epoch += 1
        assert self.lease is not None
        assert self.lease.epoch == self.epoch

    @precondition(lambda self: self.lease is not None)
    @rule()
    def other_owner_is_refused_while_the_lease_is_held(self) -> None:
        assert self.wait(self.store.acquire(PARTITION, owner="p", ttl_ms=LEASE_MS)) is None

    @precondition(lambda self: self.lease is not None)
    @rule()
    def release(self) -> None:
        assert self.lease is not None
        self.wait(self.store.release(self.lease))
        self.stale, self.lease = self.lease, None

    @precondition(lambda self: self.skip_hour is not None)
    @rule()
    def an_hour_passes(self) -> None:
        assert self.skip_hour is not None
        self.skip_hour()
        self.stale, self.lease = self.lease or self.stale, None
        for run in self.runs.values():
            run.timers = {body: max(0, hours - 1) for body, hours in run.timers.items()}

    # ---- everybody ----

    @rule(run_id=_runs, fingerprint=st.sampled_from([b"", b"f", b"g"]))
    def start(self, run_id: str, fingerprint: bytes) -> None:
        known = self.runs.get(run_id)
        outcome = self.wait(
            self.store.start(
                StartRun(
                    run_id=run_id,
                    app="a",
                    workflow="w",
                    deployment="d",
                    input=b"i",
                    fingerprint=fingerprint,
                )
            )
        )
        if known is None:
            assert outcome is StartOutcome.ACCEPTED
            self.runs[run_id] = ModelRun(fingerprint, "d")
            self._learn(run_id, Message(MessageKind.START, run_id).encode())
        else:
            differs = len({fingerprint, known.fingerprint} - {b""}) == 2
            assert outcome is (StartOutcome.CONFLICT if differs else StartOutcome.DUPLICATE)

    @rule(
        run_id=_runs,
        token=st.sampled_from([None, *TOKENS]),
        resume=st.sampled_from(["", "r", "s"]),
    )
    def send(self, run_id: str, token: str | None, resume: str) -> None:
        run = self.runs.get(run_id)
        expected = SendOutcome.UNKNOWN if run is None else run.send(token, resume)
        outcome = self.wait(self.store.send(run_id, b"s", token=token, resume_id=resume))
        assert outcome is expected
        if outcome is SendOutcome.ACCEPTED and run is not None:
            run.resumes |= {(token or "", resume)} if resume else set()
            self._learn(run_id, b"s")

    def _learn(self, run_id: str, body: bytes) -> None:
        """Learn the id of a message that was just added, with whatever lease it takes."""
        if self.lease is None:
            self.acquire()
        assert self.lease is not None
        window = self.wait(self.store.window(self.lease, after="", limit=1000))
        assert window is not None
        assert (window[-1].body, window[-1].epoch) == (body, 0)
        self.runs[run_id].messages[window[-1].id] = body

    # ---- the owner ----

    def _entry(self, run_id: str, guards: tuple[str, int], drawn: dict[str, Any]) -> CommitEntry:
        which, off = guards
        run = self.runs.get(run_id, ModelRun(b"", ""))
        outstanding = sorted(run.outstanding, key=message_order)
        handled = {
            "one": outstanding[:1] or self.old_ids[-1:],
            "all": outstanding or self.old_ids[-1:],
            "none": [],
            "old": self.old_ids[-1:],
        }[which]

        def body(number: int) -> bytes:
            return Message(MessageKind.TIMER, run_id, number).encode()

        fields: dict[str, Any] = {
            **drawn,
            "timers": tuple((hours * HOUR_MS, body(n)) for hours, n in drawn["timers"]),
            "drop_timers": tuple(body(n) for n in drawn["drop_timers"]),
        }
        return CommitEntry(
            run_id=run_id, handled=tuple(handled), base=max(0, len(run.log) + off), **fields
        )

    @precondition(lambda self: self.lease is not None or self.stale is not None)
    @rule(
        parts=st.lists(st.tuples(_runs, _guards, changes()), min_size=1, max_size=4),
        is_stale=st.sampled_from([False, False, False, True]),
    )
    def commit(
        self, parts: list[tuple[str, tuple[str, int], dict[str, Any]]], is_stale: bool
    ) -> None:
        use_stale = (is_stale and self.stale is not None) or self.lease is None
        lease = self.stale if use_stale else self.lease
        assert lease is not None
        entries = [self._entry(*part) for part in parts]
        reply = self.wait(self.store.commit(lease, entries))
        refused: dict[str, CommitOutcome] = {}
        for entry, answer in zip(entries, reply.answers, strict=True):
            run = self.runs.get(entry.run_id)
            expected: CommitOutcome | None = CommitOutcome.EPOCH if use_stale else None
            if expected is None:
                expected = refused.get(entry.run_id)
            if expected is None:
                expected = CommitOutcome.GONE if run is None else run.refusal(entry)
            assert answer.outcome is (expected or CommitOutcome.OK)
            if expected is not None:
                refused[entry.run_id] = expected
                assert answer.message_ids == ()
            elif run is not None:
                self.old_ids += entry.handled
                run.apply(entry, answer.message_ids)

    @precondition(lambda self: self.lease is not None)
    @rule(run_id=_runs, which=st.sampled_from(["one", "all"]))
    def delete_messages(self, run_id: str, which: str) -> None:
        nothing: dict[str, Any] = {"timers": (), "drop_timers": ()}
        entry = self._entry(run_id, (which, 0), nothing)
        assert self.lease is not None
        (answer,) = self.wait(self.store.commit(self.lease, [entry])).answers
        run = self.runs.get(run_id)
        expected = CommitOutcome.GONE if run is None else run.refusal(entry)
        assert answer.outcome is (expected or CommitOutcome.OK)
        if expected is None and run is not None:
            self.old_ids += entry.handled
            run.apply(entry, answer.message_ids)

    @rule(run_id=_runs)
    def delete_run(self, run_id: str) -> None:
        run = self.runs.get(run_id)
        expected = DeleteOutcome.UNKNOWN
        if run is not None:
            is_over = run.status.is_terminal and not run.effects
            expected = DeleteOutcome.DELETED if is_over else DeleteOutcome.OPEN
        assert self.wait(self.store.delete_run(run_id)) is expected
        if expected is DeleteOutcome.DELETED:
            del self.runs[run_id]

    @precondition(lambda self: self.lease is not None)
    @rule(limit=st.integers(1, 5))
    def fire(self, limit: int) -> None:
        assert self.lease is not None
        fired = self.wait(self.store.fire_timers(self.lease, limit=limit))
        assert fired is not None
        due = {
            body: run
            for run in self.runs.values()
            for body, hours in run.timers.items()
            if hours == 0
        }
        assert len(fired.messages) == min(limit, len(due))
        for message in fired.messages:
            run = due.pop(message.body)
            del run.timers[message.body]
            run.messages[message.id] = message.body

    # ---- what must hold ----

    @invariant()
    def runs_are_as_the_model_says(self) -> None:
        for run_id in RUN_IDS:
            run = self.runs.get(run_id)
            record = self.wait(self.store.read_run(run_id))
            if run is None:
                assert record is None
                continue
            assert record is not None
            assert (record.status, record.turn) == (run.status, run.turn)
            assert (record.tags, record.reason) == (run.tags, run.reason)
            assert record.state_at == run.state_at
            assert record.deployment == run.deployment
            assert record.events == len(run.log)
            assert (record.finished_ms is not None) == run.status.is_terminal
            assert self.wait(self.store.read_events(run_id)) == run.log
            hooks = {token: hook for token, hook in run.hooks.items() if hook is not None}
            assert self.wait(self.store.open_hooks(run_id)) == hooks
            for token in TOKENS:
                found = self.wait(self.store.find_hook(run_id, token))
                assert found == ((run.hooks[token] or CLOSED_HOOK) if token in run.hooks else None)

    @invariant()
    def stored_messages_are_the_outstanding_work(self) -> None:
        messages = {i: body for run in self.runs.values() for i, body in run.outstanding.items()}
        timers = sum(len(run.timers) for run in self.runs.values())
        assert self.wait(self.store.depth([PARTITION])) == (len(messages), timers)
        if self.lease is not None:
            window = self.wait(self.store.window(self.lease, after="", limit=1000))
            assert window is not None
            assert [(m.id, m.body) for m in window] == sorted(
                messages.items(), key=lambda item: message_order(item[0])
            )

    @invariant()
    def runs_are_listed_and_counted(self) -> None:
        page = self.wait(self.store.query_runs(RunQuery()))
        assert {run.run_id for run in page.runs} == self.runs.keys()
        counts = self.wait(self.store.count_runs())
        still_open = [run.status for run in self.runs.values() if not run.status.is_terminal]
        assert counts == {("a", status): still_open.count(status) for status in still_open}


def _search(make: Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        cast(type[RuleBasedStateMachine], make),  # any factory will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def test_memory_store_follows_the_model() -> None:
    def make() -> StoreMachine:
        clock = [1_700_000_000_000]

        def skip_hour() -> None:
            clock[0] += HOUR_MS

        return StoreMachine(MemoryStore(now_ms=lambda: clock[0], partitions=2), skip_hour)

    _search(make, examples=100, steps=30)


def test_valkey_store_follows_the_model(valkey: EmbeddedValkey) -> None:
    def make() -> StoreMachine:
        url = f"{valkey.url}&partitions=2&prefix=model{next(_numbers)}"
        return StoreMachine(open_store(url), None)

    _search(make, examples=25, steps=25)
