"""An executable model of the hand-off protocol, and a checker that explores it exhaustively.

What is modelled: one run, the partition that holds it (lease epoch, message stream, event log,
timers, the record of the accepted hook payload), the token index in a second partition, two
dispatchers with possibly stale memories, two instances with live coroutines, and the network
between them.

    python -m tests.model.handoff                  explore both programs, then every planted bug
    python -m tests.model.handoff --mutate NAME    one planted bug, with its counterexample
    python -m tests.model.handoff --faults 1       a smaller bound (default 2)

The rules of the protocol, as the model has them:

* COMMIT is one atomic store operation, guarded in this order by the epoch, by the presence of the
  message that it handles, and by the run's sequence number (the length of its log). It answers ok,
  or refused with `epoch` (stop being owner), `gone` (this message was handled already: forget the
  answer, read the log again) or `sequence` (read the log again; keep a step's result, throw a turn
  away). After a lost reply the dispatcher knows nothing and just commits the same answer again: the
  message guard makes the second one harmless.
* A turn feeds its inputs to the workflow one at a time in log order, so batching does not change
  the outcome. A live coroutine is identified by WHAT it has consumed (a digest; here the tuple
  itself), not by how many.
* A step's invocation may carry over into the next turn; base is the sequence number at its
  dispatch. If the log moved, only the step's result is kept, and nothing at all once the run is
  terminal.
* Others only add messages: `start` once per key, `resume` only for an open hook and once per resume
  id, each in one script with its check; `cancel` at any time. A due timer becomes a message in one
  atomic move.
* Claim first: before an answer that opens a hook is committed, its token is claimed in the index
  partition. A claim by the same run succeeds again; if another run holds the token, `conflict` is
  logged instead.
* An invocation is sent again only after the first is known to be dead (its instance or link is
  gone).

Disturbances, at most 2 in one history: a lost commit reply, a lost answer (the coroutine has
advanced), a crashed instance, a crashed dispatcher, a lease taken while its owner is alive and
believes in it (a pause past the lease), a cancel, a rival run that claims the token. Free, at every
moment: eviction of a coroutine (a finish without carry-over), late deliveries, a message that the
owner learns of late. Left out: work of a stale owner that could only end in a refused commit, and
coroutines that are behind the last committed turn (they count as evicted).

Time is abstract: a timer that exists may be due. Each action is atomic; what two machines do at
once is two actions in either order. Progress means: from every reachable state a finished,
cleaned-up run can still be reached without faults and without help from a cancel.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

NONE: frozenset[str] = frozenset()
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}
INVARIANTS = LOST, ONCE, FINAL, STALE, REPLAY, AGAIN, PAYLOAD, TOKEN, PROGRESS = (
    "no message is lost: what a run waits for always has a message, a timer or an open hook",
    "each result is recorded at most once",
    "no event after a terminal event: cancel is final",
    "a stale owner never commits",
    "replay of the log gives what the live coroutine saw and did",
    "a finished step never starts again at the owner that committed it",
    "an accepted hook payload is delivered exactly once, unless the run ends first",
    "an open hook's token belongs to its run",
    "a finished state stays reachable without faults or a cancel (progress)",
)

MUTANTS = {
    "no_epoch_check": "the commit script accepts a stale epoch",
    "no_sequence_check": "the commit script ignores the expected sequence number",
    "no_message_guard": "the commit script does not look whether the handled message still exists",
    "delete_before_commit": "a message is deleted when it is dispatched, not by the commit",
    "carry_over_unchecked": "a carried-over turn is committed although the log moved",
    "live_by_count": "a live coroutine is accepted by how many inputs it consumed, not by which",
    "result_after_terminal": "a late step result is recorded although the run is terminal",
    "timer_removed_first": "a due timer is removed in one call and its message added in a second",
    "start_not_idempotent": "a second start with the same key adds a message, and is believed",
    "resume_not_deduplicated": "a second resume with the same id is recorded again",
    "early_resume_accepted": "a resume is accepted before the hook exists; the owner drops it",
    "claim_after_commit": "the hook is opened first and its token claimed afterwards",
    "redispatch_unconfirmed": "an invocation is sent again while the first may still be on its way",
    "late_window": "a window is read on a second connection and used after later commits",
    "drop_unguarded": "a commit that only deletes a message is not guarded by the sequence number",
    "turn_past_the_end": "a turn that has more inputs goes on after the workflow returned",
    "wake_up_coalesced": "no new turn message while another turn is outstanding or running",
}

Log = tuple[str, ...]
Item = TypeVar("Item")


class Store(NamedTuple):
    epoch: int = 0
    messages: frozenset[str] = NONE
    log: Log = ()
    timers: frozenset[str] = NONE
    token: str = ""  # the index partition: who holds the hook's token ("", "run", "rival")
    accepted: bool = False  # a resume was answered "accepted"
    starts: int = 0
    cancel: bool = False  # a cancel was answered "accepted"


class Job(NamedTuple):
    """One invocation: sent -> answered (opens a hook: claim its token first) -> ready to commit."""

    message: str
    instance: int
    phase: str
    base: int  # length of the log, as the dispatcher knew it when it sent this
    tip: Log | None  # what the live coroutine must have consumed (None: no carry-over)
    new: Log = ()  # inputs for a turn
    result: str = ""  # a step's event
    seen: Log | None = (
        None  # what the coroutine has consumed after this answer (None: no turn in it)
    )
    outputs: Log = ()


class Dispatcher(NamedTuple):
    epoch: int = 0  # 0: does not believe that it owns the partition
    log: Log | None = None  # its copy of the run's log
    known: frozenset[str] = NONE  # messages that it knows of
    jobs: frozenset[Job] = frozenset()
    hand: frozenset[str] = NONE  # only planted bugs keep something here


class State(NamedTuple):
    store: Store = Store()
    dispatchers: tuple[Dispatcher, Dispatcher] = (Dispatcher(), Dispatcher())
    coroutines: tuple[Log | None, Log | None] = (
        None,
        None,
    )  # per instance: the inputs consumed, in order
    faults: int = 0


class ViolationError(Exception):
    pass


# ---- the workflow programs: what the code asks for when it consumes the last of these inputs ----


def fan_out(seen: Log) -> Log:
    """Two parallel steps; a step whose argument is the first finisher; a hook; done."""
    last = seen[-1]
    if last == "started":
        return ("sched:a", "sched:b")
    if last in ("done:a", "done:b"):
        finished = [e[5:] for e in seen if e in ("done:a", "done:b")]
        return (f"sched:c_{finished[0]}",) if len(finished) == 2 else ()
    if last.startswith("done:c"):
        return ("hook",)
    return ("COMPLETED",) if last == "payload" else ("FAILED",)


def retry_and_sleep(seen: Log) -> Log:
    """A hook up front; a step that may fail once; a sleep unless the payload came; the hook."""
    last = seen[-1]
    if last == "started":
        return ("hook", "sched:c")
    if last == "conflict":
        return ("FAILED",)
    if last == "done:c":
        return ("COMPLETED",) if "payload" in seen else ("sleep",)
    return ("COMPLETED",) if "payload" in seen and "woke" in seen else ()


@cache
def inputs(log: Log) -> Log:
    return tuple(
        e for e in log if e in ("started", "payload", "conflict", "woke") or e.startswith("done:")
    )


@cache
def consumed(log: Log) -> int:
    return max((int(e[5:]) for e in log if e.startswith("turn:")), default=0)


@cache
def unfinished(log: Log) -> frozenset[str]:
    return frozenset(e[6:] for e in log if e.startswith("sched:")) - {
        e[5:] for e in log if e.startswith("done:")
    }


def terminal(log: Log | None) -> bool:
    return log is not None and not TERMINAL.isdisjoint(log)


class Model:
    def __init__(self, program: Callable[[Log], Log], mutant: str = "", faults: int = 2) -> None:
        self.program, self.mutant, self.faults = program, mutant, faults
        self.broken_in = cache(self.broken)  # it depends on the store alone

    # ---- invariants of the store; those of an action are raised where the action is ----

    def broken(self, store: Store) -> str:
        """The name of a broken invariant, or nothing."""
        log, messages = store.log, store.messages
        count = Counter(
            e for e in log if e == "started" or e in ("payload", "woke") or e.startswith("done:")
        )
        ends = [i for i, e in enumerate(log) if e in TERMINAL]
        if ends and ends[0] != len(log) - 1:
            return FINAL
        if count["payload"] > 1 or (count["payload"] and not store.accepted):
            return PAYLOAD
        if any(n > 1 for n in count.values()):
            return ONCE
        done = inputs(log)
        replayed = tuple(o for n in range(1, len(done) + 1) for o in self.program(done[:n]))
        written = tuple(
            "hook" if e == "conflict" else e
            for e in log
            if e.startswith("sched:") or e in ("hook", "conflict", "sleep", "COMPLETED", "FAILED")
        )
        if replayed[: len(written)] != written:
            return REPLAY
        if ends:
            return ""
        if "hook" in log and store.token == "rival":
            return TOKEN
        if (
            store.accepted
            and not count["payload"]
            and not any(m.startswith("resume:") for m in messages)
        ):
            return PAYLOAD
        wanted: list[tuple[str, bool]] = [
            ("start:", bool(store.starts) and not log),
            ("cancel", store.cancel),
            ("turn:", consumed(log) < len(done)),
            ("timer:", "sleep" in log and not count["woke"]),
            *((f"step:{step}:", True) for step in unfinished(log)),
        ]
        for prefix, needed in wanted:
            if needed and not any(m.startswith(prefix) for m in messages | store.timers):
                return LOST
        return ""

    # ---- actions: each yields (label, kind, next state); kind is "step", "fault" or "world" ----

    def successors(self, s: State) -> Iterator[tuple[str, str, State]]:
        yield from self.world(s)
        if s.faults < self.faults:
            yield from self.crashes(s)
        for d, me in enumerate(s.dispatchers):
            yield from self.acquire(s, d)
            if me.epoch and me.epoch == s.store.epoch:  # reading the stream is fenced too
                yield from self.load(s, d)
            for message in me.known - {job.message for job in me.jobs}:
                yield from self.handle(s, d, message)
            for job in me.jobs:
                yield from self.advance(s, d, job)

    def world(self, s: State) -> Iterator[tuple[str, str, State]]:
        store, bug = s.store, self.mutant

        def add(message: str, **changes: Any) -> State:
            return s._replace(store=store._replace(messages=store.messages | {message}, **changes))

        # A repeated start or resume is answered from the record and changes nothing: no action.
        if not store.starts or (bug == "start_not_idempotent" and store.starts == 1):
            yield "client: start", "step", add(f"start:{store.starts + 1}", starts=store.starts + 1)
        if not store.starts:
            return
        alive = not terminal(store.log)
        if alive and not store.accepted and ("hook" in store.log or bug == "early_resume_accepted"):
            yield "client: resume", "step", add("resume:1", accepted=True)
        if bug == "resume_not_deduplicated" and alive and store.log.count("payload") == 1:
            yield "client: resume again, same id", "world", add("resume:2")
        if alive and not store.cancel and s.faults < self.faults:
            yield (
                "client: cancel",
                "world",
                add("cancel", cancel=True)._replace(faults=s.faults + 1),
            )
        if alive and not store.token and s.faults < self.faults:
            yield (
                "rival run claims the token",
                "world",
                s._replace(store=store._replace(token="rival"), faults=s.faults + 1),
            )
        for timer in store.timers:
            if bug == "timer_removed_first":  # the owner may crash before its second call
                yield (
                    f"owner removes due {timer}",
                    "step",
                    s._replace(store=store._replace(timers=store.timers - {timer})),
                )
            else:
                yield f"store: {timer} due", "step", add(timer, timers=store.timers - {timer})

    def crashes(self, s: State) -> Iterator[tuple[str, str, State]]:
        for d, me in enumerate(s.dispatchers):
            if me.epoch:
                yield f"D{d} crashes", "fault", self.put(s, d, Dispatcher(), fault=True)
        for i in (0, 1):
            hit = [
                frozenset(j for j in me.jobs if j.instance == i and j.phase in ("sent", "lost"))
                for me in s.dispatchers
            ]
            if s.coroutines[i] is None and not any(hit):
                continue
            after = s._replace(faults=s.faults + 1, coroutines=swap(s.coroutines, i, None))
            for d, lost in enumerate(hit):
                after = self.put(
                    after, d, after.dispatchers[d]._replace(jobs=after.dispatchers[d].jobs - lost)
                )
            yield f"I{i} crashes", "fault", after

    def acquire(self, s: State, d: int) -> Iterator[tuple[str, str, State]]:
        store, me, other = s.store, s.dispatchers[d], s.dispatchers[1 - d]
        if me.epoch and me.epoch == store.epoch:
            return
        if d == 1 and me == other:
            return  # the same as D0 doing it
        steals = store.epoch > 0 and other.epoch == store.epoch
        if steals and s.faults >= self.faults:
            return
        after = s._replace(store=store._replace(epoch=store.epoch + 1))
        if steals and self.mutant != "no_epoch_check":
            after = self.put(after, 1 - d, self.zombie(other))
        yield (
            f"D{d} acquires epoch {store.epoch + 1}" + (" (old owner alive)" if steals else ""),
            "fault" if steals else "step",
            self.put(after, d, Dispatcher(epoch=store.epoch + 1), fault=steals),
        )

    def zombie(self, me: Dispatcher) -> Dispatcher:
        """What of a stale owner can touch a coroutine or the token; the rest would be refused."""
        log = me.log or ()
        caught_up = consumed(log) == len(inputs(log)) and len(unfinished(log)) == 1
        known = frozenset(
            m for m in me.known if m.startswith("turn:") or (m.startswith("step:") and caught_up)
        )
        jobs = frozenset(j for j in me.jobs if j.tip is not None)
        return me._replace(known=known, jobs=jobs) if known or jobs else Dispatcher()

    def load(self, s: State, d: int) -> Iterator[tuple[str, str, State]]:
        """Learn of one more outstanding message, at any time: windows of one, in one order."""
        store, me = s.store, s.dispatchers[d]
        for message in sorted(store.messages - me.known)[-1:]:
            log = store.log if me.log is None else me.log
            yield (
                f"D{d} loads {message}",
                "step",
                self.put(s, d, me._replace(known=me.known | {message}, log=log)),
            )
        if self.mutant == "late_window" and me.log is not None:
            if not me.hand and store.messages:
                yield (
                    f"D{d} asks for a window",
                    "step",
                    self.put(s, d, me._replace(hand=store.messages)),
                )
            elif me.hand:
                yield (
                    f"D{d} uses the window",
                    "step",
                    self.put(s, d, me._replace(known=me.known | me.hand, hand=NONE)),
                )

    def handle(self, s: State, d: int, message: str) -> Iterator[tuple[str, str, State]]:
        """A known message with no invocation: turn it into events, drop it, or dispatch it."""
        me, kind = s.dispatchers[d], message.split(":")[0]
        log = me.log or ()
        moot = (
            terminal(log)
            or (kind == "start" and log and self.mutant != "start_not_idempotent")
            or (
                kind == "resume"
                and (
                    "hook" not in log
                    or ("payload" in log and self.mutant != "resume_not_deduplicated")
                )
            )
            or (kind == "turn" and consumed(log) == len(inputs(log)))
            or (kind == "timer" and "woke" in log)
        )
        event = {
            "start": "started",
            "resume": "payload",
            "timer": "woke",
            "cancel": "CANCELLED",
        }.get(kind, "")
        if moot:
            yield from self.commit(s, d, None, message, ())
        elif event:
            yield from self.commit(s, d, None, message, (event,))
        elif kind == "step" or not any(
            j.message.startswith("turn:") for j in me.jobs
        ):  # one turn at a time
            done, cut = inputs(log), consumed(log)
            only = kind == "step" and cut == len(done) and len(unfinished(log)) == 1
            tip = done[:cut] if kind == "turn" or only else None
            job = Job(message, 0, "sent", len(log), tip, done[cut:] if kind == "turn" else ())
            blank = s.coroutines == (None, None) and not any(x.jobs for x in s.dispatchers)
            store = s.store
            if kind == "step":
                self.start_body(s, d, message)
            if self.mutant == "delete_before_commit":
                store = store._replace(messages=store.messages - {message})
            for i in (0,) if blank else (0, 1):
                after = self.put(
                    s._replace(store=store),
                    d,
                    me._replace(jobs=me.jobs | {job._replace(instance=i)}),
                )
                yield f"D{d} sends {message} to I{i}", "step", after

    def advance(self, s: State, d: int, job: Job) -> Iterator[tuple[str, str, State]]:
        me = s.dispatchers[d]
        if job.phase == "sent":
            yield from self.finish(s, d, job)
            if (
                self.mutant == "redispatch_unconfirmed"
                and job.message.startswith("step:")
                and s.faults < self.faults
            ):
                lost = me._replace(
                    jobs=me.jobs - {job}
                    | {job._replace(phase="lost", message="late " + job.message)}
                )
                yield (
                    f"D{d} gives up on I{job.instance} for {job.message}",
                    "fault",
                    self.put(s, d, lost, fault=True),
                )
        elif job.phase == "lost":
            self.start_body(s, d, job.message)
            yield (
                f"I{job.instance} starts {job.message}",
                "step",
                self.put(s, d, me._replace(jobs=me.jobs - {job})),
            )
        elif job.phase == "answered":
            mine = s.store.token in ("", "run")
            outputs = (
                job.outputs
                if mine
                else tuple("conflict" if o == "hook" else o for o in job.outputs)
            )
            after = self.put(
                s,
                d,
                me._replace(jobs=me.jobs - {job} | {job._replace(phase="ready", outputs=outputs)}),
            )
            if mine and self.mutant != "claim_after_commit":
                after = after._replace(store=s.store._replace(token="run"))
            yield (
                f"D{d} claims the token for {job.message}: {'ours' if mine else 'conflict'}",
                "step",
                after,
            )
        else:
            yield from self.commit_answer(s, d, job)

    def start_body(self, s: State, d: int, message: str) -> None:
        me, name = s.dispatchers[d], message.split(":")[1]
        if f"done:{name}" in (me.log or ()) and me.epoch == s.store.epoch:
            raise ViolationError(AGAIN, f"{message} starts, its result is committed and known")

    def finish(self, s: State, d: int, job: Job) -> Iterator[tuple[str, str, State]]:
        """The instance answers; a turn may be live or a replay; a step may carry over."""
        i, live, me = job.instance, s.coroutines[job.instance], s.dispatchers[d]
        kind, _, rest = job.message.partition(":")
        fits = live == job.tip or (
            self.mutant == "live_by_count" and live and job.tip and len(live) == len(job.tip)
        )
        answers: list[tuple[str, Job]] = []
        if kind == "turn":
            seen = (live if fits and live is not None else job.tip or ()) + job.new
            answers.append(("answers", self.turn(job, seen, len(job.new))))
        else:
            done = job._replace(result=f"done:{rest.split(':')[0]}", phase="ready")
            answers.append(("answers", done))
            if live and job.tip and fits:
                answers.append(("carries over", self.turn(done, (*live, done.result), 1)))
            if job.message == "step:c:1":
                answers.append(("fails", done._replace(result="failed:c:1")))
        for verb, answer in answers:
            after = (
                s
                if answer.seen is None
                else s._replace(coroutines=swap(s.coroutines, i, answer.seen))
            )
            gone = self.put(after, d, me._replace(jobs=me.jobs - {job}), fault=True)
            after = self.put(after, d, me._replace(jobs=me.jobs - {job} | {answer}))
            if (
                answer.seen is not None and s.faults < self.faults
            ):  # the link breaks: nobody knows that it advanced
                yield f"I{i} {verb} {job.message}, answer lost", "fault", gone
            if answer.phase == "answered":
                yield f"I{i} {verb} {job.message}", "step", after
            else:  # the commit follows at once: the instance cannot tell the difference
                yield from self.commit_answer(after, d, answer, f"I{i} {verb}, ")

    def turn(self, job: Job, seen: Log, fresh: int) -> Job:
        outputs: Log = ()
        for n in range(len(seen) - fresh + 1, len(seen) + 1):
            if (
                not terminal(outputs) or self.mutant == "turn_past_the_end"
            ):  # the workflow returned: what else arrived is for nobody
                outputs += self.program(seen[:n])
        return job._replace(
            seen=seen, outputs=outputs, phase="answered" if "hook" in outputs else "ready"
        )

    # ---- commits ----

    def commit_answer(
        self, s: State, d: int, job: Job, label: str = ""
    ) -> Iterator[tuple[str, str, State]]:
        step = job.message.startswith("step:")
        log = s.dispatchers[d].log or ()
        turn = (f"turn:{len(job.seen)}", *job.outputs) if job.seen is not None else ()
        if terminal(log) and not (step and self.mutant == "result_after_terminal"):
            yield from self.commit(s, d, job, job.message, (), label=label)
        elif not step:
            yield from self.commit(s, d, job, job.message, turn, job.base, label=label)
        elif turn and (job.base == len(log) or self.mutant == "carry_over_unchecked"):
            yield from self.commit(s, d, job, job.message, (job.result, *turn), label=label)
        else:
            yield from self.commit(
                s, d, job._replace(seen=None), job.message, (job.result,), drop=job, label=label
            )

    def commit(
        self,
        s: State,
        d: int,
        job: Job | None,
        message: str,
        events: Log,
        base: int | None = None,
        drop: Job | None = None,
        label: str = "",
    ) -> Iterator[tuple[str, str, State]]:
        """The atomic script and what the dispatcher does with its answer."""
        store, me, bug = s.store, s.dispatchers[d], self.mutant
        mine = me.log or ()
        jobs = me.jobs - {drop or job}
        expected = len(mine) if base is None else base
        label += f"D{d} commits {message} -> [{' '.join(events)}]"
        handled = {message}
        if message.startswith(
            "turn:"
        ):  # fan-in: this turn consumed the inputs of every turn asked for by then
            handled |= {m for m in me.known if m.startswith("turn:") and int(m[5:]) <= expected}
        if me.epoch != store.epoch and bug != "no_epoch_check":
            yield label + ": refused, epoch", "step", self.put(s, d, Dispatcher())
            return
        if message not in store.messages and bug not in (
            "no_message_guard",
            "delete_before_commit",
        ):
            yield (
                label + ": gone",
                "step",
                self.put(s, d, me._replace(log=store.log, known=me.known - {message}, jobs=jobs)),
            )
            return
        unguarded = bug == "no_sequence_check" or (bug == "drop_unguarded" and not events)
        if expected != len(store.log) and not unguarded:
            keep = jobs if job is None or message.startswith("turn:") else me.jobs
            yield (
                label + ": refused, sequence",
                "step",
                self.put(s, d, me._replace(log=store.log, jobs=keep)),
            )
            return
        if me.epoch != store.epoch:
            raise ViolationError(STALE, label)
        log = store.log + events
        if events:  # a coroutine that is behind the last turn can never be asked for again: evicted
            first, second = (
                None if terminal(log) or len(c or ()) < consumed(log) else c for c in s.coroutines
            )
            s = s._replace(coroutines=(first, second))
        if (
            job is not None
            and job.seen is not None
            and events
            and job.seen != inputs(log)[: len(job.seen)]
        ):
            raise ViolationError(REPLAY, f"it saw {job.seen}, the log has {inputs(log)}")
        add, timers = self.follow_up(events, len(mine) + len(events), me)
        after = s._replace(
            store=store._replace(
                log=log,
                messages=store.messages - handled | add,
                timers=NONE if terminal(log) else store.timers | timers,
            )
        )
        yield (
            label,
            "step",
            self.put(
                after, d, me._replace(log=mine + events, known=me.known - handled | add, jobs=jobs)
            ),
        )
        if s.faults < self.faults:
            yield label + ", reply lost", "fault", after._replace(faults=s.faults + 1)

    def follow_up(
        self, events: Log, length: int, me: Dispatcher
    ) -> tuple[set[str], frozenset[str]]:
        """The messages and timers that belong to these events."""
        if not TERMINAL.isdisjoint(events):
            return set(), NONE
        add = {f"step:{e[6:]}:1" for e in events if e.startswith("sched:")}
        timers = {
            "timer:z" if e == "sleep" else "step:c:2"
            for e in events
            if e in ("sleep", "failed:c:1")
        }
        fresh = [
            e
            for e in inputs(events)
            if e == "conflict" or not any(t.startswith("turn:") for t in events)
        ]
        if fresh and not (
            self.mutant == "wake_up_coalesced" and any(m.startswith("turn:") for m in me.known)
        ):
            add.add(f"turn:{length}")
        return add, frozenset(timers)

    @staticmethod
    def put(s: State, d: int, me: Dispatcher, fault: bool = False) -> State:
        return State(s.store, swap(s.dispatchers, d, me), s.coroutines, s.faults + fault)


def swap(pair: tuple[Item, Item], index: int, value: Item) -> tuple[Item, Item]:
    return (value, pair[1]) if index == 0 else (pair[0], value)


# ---- exploration ----


class Result(NamedTuple):
    states: int
    transitions: int
    depth: int
    violation: str
    trace: list[str]


def explore(model: Model, limit: int) -> Result:
    """Breadth first, so a counterexample is a shortest one; then progress, from its end."""
    number, order, origin, depth = {State(): 0}, [State()], [(0, "")], [0]
    backwards: list[list[int]] = [[]]  # who leads here without a fault
    transitions = 0

    def result(violation: str = "", at: int = 0, last: str = "") -> Result:
        steps = [last] if last else []
        while at:
            at, label = origin[at]
            steps.append(label)
        return Result(len(order), transitions, depth[-1], violation, steps[::-1])

    for at, s in enumerate(order):  # it grows while we walk it
        try:
            for label, kind, after in model.successors(s):
                transitions += 1
                index = number.setdefault(after, len(order))
                if index == len(order):
                    order.append(after)
                    origin.append((at, sys.intern(label)))
                    depth.append(depth[at] + 1)
                    backwards.append([])
                    if broken := model.broken_in(after.store):
                        return result(broken, index)
                if kind == "step":
                    backwards[index].append(at)
        except ViolationError as rule:
            return result(rule.args[0], at, f"then: {rule.args[1]}")
        if len(order) > limit:
            return result("too many states, not complete")
    good = bytearray(
        terminal(s.store.log) and not s.store.messages and not s.store.timers for s in order
    )
    todo = [index for index, clean in enumerate(good) if clean]
    while todo:
        for index in backwards[todo.pop()]:
            if not good[index]:
                good[index] = 1
                todo.append(index)
    stuck = good.find(0)
    return result(PROGRESS, stuck) if stuck >= 0 else result()


PROGRAMS = {"fan_out": fan_out, "retry_and_sleep": retry_and_sleep}


def hunt(mutant: str, faults: int, limit: int, show: bool) -> bool:
    """Look for a planted bug with 0, 1, ... disturbances: the counterexample is a simple one."""
    for bound in range(faults + 1):
        for name, program in PROGRAMS.items():
            r = explore(Model(program, mutant, bound), limit)
            if r.violation:
                print(
                    f"caught  {mutant}: {r.violation.split(':')[0]} ({name}, {bound} disturbances, "
                    f"{r.states:,} states, {len(r.trace)} actions)",
                    *r.trace * show,
                    sep="\n    ",
                    flush=True,
                )
                return True
    print(f"MISSED  {mutant}: {MUTANTS[mutant]}", flush=True)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Explore Fluvial's hand-off protocol.")
    parser.add_argument(
        "--mutate", choices=sorted(MUTANTS), default="", help="explore one planted bug"
    )
    parser.add_argument(
        "--faults",
        type=int,
        default=2,
        help="disturbances in one history: faults, cancel, rival (default 2)",
    )
    parser.add_argument(
        "--limit", type=int, default=4_000_000, help="give up after this many states"
    )
    options = parser.parse_args()
    gc.disable()  # nothing here is cyclic, and a million small tuples are slow to walk
    began, good = time.monotonic(), True
    if not options.mutate:
        for name, program in PROGRAMS.items():
            r = explore(Model(program, "", options.faults), options.limit)
            good &= not r.violation
            print(
                f"{name}: {r.states:,} states, {r.transitions:,} transitions, depth {r.depth},"
                f" {options.faults} disturbances: "
                f"{r.violation or 'all invariants hold'}",
                *r.trace,
                sep="\n    ",
                flush=True,
            )
        print("invariants checked:", *INVARIANTS, sep="\n    ")
    planted = [options.mutate] if options.mutate else list(MUTANTS)
    caught = [
        hunt(mutant, options.faults, options.limit, bool(options.mutate)) for mutant in planted
    ]
    print(f"{sum(caught)} of {len(caught)} planted bugs caught")
    print(
        f"{time.monotonic() - began:.0f} s,"
        f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB"
    )
    return int(not (good and all(caught)))


if __name__ == "__main__":
    sys.exit(main())
