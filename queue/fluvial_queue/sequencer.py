"""The sequencer: decides what happens to each message of a partition. It does no I/O.

Its owner (the gateway's dispatcher, the test kit, a simulation) feeds it messages, answers and
losses, and carries out what it asks for through a `Port`. Invariants:

1.  A run has at most one commit under way. What becomes ready meanwhile goes into the next one, so
    a hundred results that arrive together cost one entry.
2.  Views change only by what a commit's answer has confirmed; nothing is dispatched before that.
3.  A run has at most one turn under way. While it is, results and inputs wait in memory (their
    messages still exist) and are appended right behind the turn's outputs, in the same entry. A
    cancel and a terminate do not wait: they move the log, and the turn's answer is thrown away.
4.  A turn's answer is committed only onto the log that it has seen (`Job.base`). A step's result is
    kept whatever happened to the log; the turn that it carried over only if the log did not move.
5.  A refusal other than EPOCH means that this view is wrong: the run is read again, and what is
    still outstanding is decided anew. Results in hand are offered again; turns are thrown away.
6.  A job is dispatched again only after its first invocation is known to be over (`lost`,
    `unavailable`, or an answer).

Protocol: DESIGN §5 and the model of the hand-off; the names of the rules are the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fluvial.events import Event, EventType
from fluvial.invocations import TURN_ID_BYTES, Answer
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    RunRecord,
    RunStatus,
    StoredMessage,
)
from fluvial_queue.effects import target_of
from fluvial_queue.entries import EntryDraft
from fluvial_queue.jobs import MAX_LOST, Job, step_job, turn_job
from fluvial_queue.messages import Message, MessageKind, decode_message
from fluvial_queue.outstanding import Outstanding
from fluvial_queue.port import Port
from fluvial_queue.proposals import InvalidProposalError, check_outputs, check_step_end
from fluvial_queue.ready import ReadyResult, ReadyTurn
from fluvial_queue.views import RunView

MAX_RESULTS = 1_000  # results in one commit entry; the rest follows in the next
CANCEL_GRACE_MS = 60_000  # how long a cancelled run's clean-up may take


@dataclass(slots=True, eq=False)
class _Run:
    """What is in memory about one run beside its view."""

    view: RunView | None = None  # None: being read
    outstanding: Outstanding = field(default_factory=Outstanding)
    jobs: dict[str, Job] = field(default_factory=dict[str, Job])  # by message id
    turn_job: Job | None = None
    turn: ReadyTurn | None = None  # evaluated, not committed
    claiming: bool = False  # its hook tokens are being claimed
    results: list[ReadyResult] = field(default_factory=list[ReadyResult])
    under_way: dict[str, str] = field(default_factory=dict[str, str])  # target → effect's message
    done: dict[str, str] = field(default_factory=dict[str, str])  # effect → problem, or ""
    draft: EntryDraft | None = None  # the commit under way
    doubtful: frozenset[str] = frozenset()  # messages known when it was last read again


class Sequencer:
    """The state machine of one partition, for as long as its lease is held."""

    def __init__(self, lease: Lease, port: Port, *, max_views: int = 10_000) -> None:
        self.lease = lease
        self._port = port
        self._runs: dict[str, _Run] = {}
        self._max_views = max_views
        self._is_over = False  # the lease is gone
        self._quiet: dict[str, None] = {}  # runs without a message, least recently active first

    # ---- what the owner reports ----

    def offer(self, stored: StoredMessage) -> None:
        """Take in a message from the stream; one that is known already is ignored."""
        if self._is_over:
            return  # read before the lease was lost: what it asks for may be under way
        message = decode_message(stored.body)
        run = self._runs.get(message.run_id)
        if run is None:
            run = self._runs[message.run_id] = _Run()
            self._port.load(message.run_id, again=False)
        if stored.id not in run.outstanding.all:
            run.outstanding.add(stored.id, message, stored.epoch)
            self._advance(message.run_id, run)

    def loaded(
        self,
        run_id: str,
        record: RunRecord | None,
        events: Iterable[bytes],
        stored: Iterable[StoredMessage] | None = None,
    ) -> None:
        """Take in what the store says of a run (None: it is gone); with `stored`, also which of its
        messages exist: those that were known when this was asked for, but are not there, have been
        handled. Those that came meanwhile may be younger than the answer."""
        run = self._runs.get(run_id)
        if run is None:
            return
        if record is None:
            self._forget(run_id, run)
            return
        run.view = RunView.load(record, events)
        if stored is not None:
            self._keep_only(run, {message.id: message for message in stored})
        if record.status.is_terminal:
            self._after_the_end(run_id, run)
        else:
            self._advance(run_id, run)

    def answered(self, job: Job, answer: Answer, instance: str, stamp: dict[str, object]) -> None:
        """Take in an instance's answer; `stamp` is what the owner knows of the invocation."""
        run = self._finish(job)
        if run is None:
            return
        try:
            if answer.outcome == "not_live":
                if job.kind == "step" or job.replay or not job.view.consumed:
                    raise InvalidProposalError("not_live, where no coroutine was asked for")
                job.view.turn_id = None
                run.outstanding.put_back(job.message_id)
            elif answer.outcome == "diverged":
                self._give_up(run, job, f"diverged: {answer.reason}")
            elif answer.outcome == "blocked":
                self._ready(run, job, pause=answer.reason)  # nothing was executed
            elif answer.outcome == "cancelled":
                self._ready(run, job, lost="cancelled")
            elif job.kind == "turn":
                self._take_turn(run, job, answer, instance)
            else:
                self._take_step(run, job, answer, instance, stamp)
        except InvalidProposalError as error:
            self._give_up(run, job, f"invalid_proposal: {error}")
        self._advance(job.view.run_id, run)

    def lost(self, job: Job, reason: str, progress: bytes = b"") -> None:
        """Take in that an invocation may have started and will never answer; `progress` is what
        its step has reported last, sealed."""
        run = self._finish(job)
        if run is not None:
            job.progress = progress
            self._ready(run, job, lost=reason)
            self._advance(job.view.run_id, run)

    def crashed(self, job: Job, reason: str, progress: bytes = b"") -> None:
        """Take in that an isolated step has ended its own process: a failed attempt, no fault."""
        job.has_crashed = True
        self.lost(job, reason, progress)

    def unavailable(self, job: Job, reason: str, *, final: bool) -> None:
        """Take in that an invocation was never started; `final`: trying again would not help."""
        run = self._finish(job)
        if run is None:
            return
        if final:
            self._ready(run, job, pause=reason)
        else:
            run.outstanding.put_back(job.message_id)
        self._advance(job.view.run_id, run)

    def claimed(self, job: Job, conflicts: Mapping[str, str]) -> None:
        """Take in which of the tokens that a turn asked for other runs hold, and which runs."""
        run = self._runs.get(job.view.run_id)
        if run is None or run.turn is None or run.turn.job is not job:
            return
        run.claiming = False
        run.turn.conflicts = conflicts
        self._advance(job.view.run_id, run)

    def carried_out(self, run_id: str, message_id: str, problem: str) -> None:
        """Take in that an effect has happened, or the problem for which it never will."""
        run = self._runs.get(run_id)
        if run is None:
            return
        run.under_way = {t: m for t, m in run.under_way.items() if m != message_id}
        if message_id in run.outstanding.all:
            run.done[message_id] = problem
            self._advance(run_id, run)

    def too_early(self, run_id: str, message_id: str) -> None:
        """Take in that an effect must come behind another one that is not known here yet."""
        run = self._runs.get(run_id)
        if run is None:
            return
        run.under_way = {t: m for t, m in run.under_way.items() if m != message_id}
        run.outstanding.put_back(message_id)
        run.outstanding.sort_effects()
        self._advance(run_id, run)

    def committed(self, entry: CommitEntry, answer: CommitAnswer) -> None:
        """Take in a commit's definite answer."""
        run = self._runs.get(entry.run_id)
        if run is None or run.draft is None or run.draft.entry is not entry:
            return  # asked for by a sequencer that has abandoned its runs since
        draft, run.draft = run.draft, None
        if answer.outcome is CommitOutcome.OK:
            self._applied(run, draft, entry, answer)
            if draft.view.status.is_terminal:
                self._after_the_end(entry.run_id, run)
            else:
                self._advance(entry.run_id, run)
        elif answer.outcome is not CommitOutcome.EPOCH:
            self._reload(entry.run_id, run, draft)

    def abandon(self) -> None:
        """The lease is gone: forget everything, stop what is under way, and begin nothing more."""
        self._is_over = True
        runs, self._runs = self._runs, {}
        self._quiet.clear()
        for run in runs.values():
            self._stop_jobs(run, "lease_lost")

    def outstanding(self) -> int:
        """Return how many messages are in memory."""
        return sum(len(run.outstanding.all) for run in self._runs.values())

    def jobs(self) -> list[Job]:
        """Return the invocations under way."""
        return [job for run in self._runs.values() for job in run.jobs.values()]

    def jobs_of(self, run_id: str) -> list[Job]:
        """Return the invocations of one run that are asked for or under way."""
        run = self._runs.get(run_id)
        return [] if run is None else list(run.jobs.values())

    def has_results(self) -> bool:
        """Whether something that was executed is not in the store yet."""
        return any(run.results or run.turn is not None for run in self._runs.values())

    # ---- one run: what can be done now? ----

    def _advance(self, run_id: str, run: _Run) -> None:
        view = run.view
        if view is None or run.draft is not None:
            return
        draft = EntryDraft(view, run.outstanding, self._port.now_ms())
        self._fill(draft, run)
        if draft.is_needed:
            run.draft = draft
            self._port.commit(draft.build())
            return
        if run.outstanding.effects:
            self._carry_out(run, view)
        if view.status is not RunStatus.PAUSED and not run.claiming:
            self._dispatch(run, view)
        if not run.outstanding.all:
            self._retire(run_id, run)

    def _fill(self, draft: EntryDraft, run: _Run) -> None:
        """Put everything that is ready into one entry, in the order of the invariants."""
        if run.done:
            self._fill_done(draft, run)
        if draft.view.status.is_terminal:
            return
        inputs = run.outstanding.inputs
        ending = next((m for m in inputs.values() if m.kind is MessageKind.TERMINATE), None)
        if ending is not None and (draft.view.length or not _has_start(inputs)):
            draft.terminate(ending)
            return
        if run.turn is not None and not run.claiming:
            self._fill_turn(draft, run, run.turn)
        if draft.ends_run():
            return
        if inputs:
            draft.add_pause()
        if run.turn is not None or run.turn_job is not None:
            draft.add_cancel(CANCEL_GRACE_MS)
        else:
            self._fill_results(draft, run)
        if not draft.ends_run() and (draft.is_needed or run.outstanding.turns):
            draft.settle_wake_ups()

    def _fill_done(self, draft: EntryDraft, run: _Run) -> None:
        """Delete the effects that were carried out; a problem is an input, and waits as they do."""
        is_busy = run.turn is not None or run.turn_job is not None
        is_over = draft.view.status.is_terminal
        for message_id, problem in list(run.done.items()):
            if not problem or is_over:
                del run.done[message_id]
                draft.add_done(message_id)
            elif not is_busy:
                del run.done[message_id]
                draft.add_done(message_id, problem)

    def _fill_turn(self, draft: EntryDraft, run: _Run, turn: ReadyTurn) -> None:
        run.turn = None
        draft.add_turn(turn)
        if draft.turn is None:  # the log moved: ask for another turn
            run.outstanding.put_back(turn.job.message_id)

    def _fill_results(self, draft: EntryDraft, run: _Run) -> None:
        ready, run.results = run.results[:MAX_RESULTS], run.results[MAX_RESULTS:]
        for number, result in enumerate(ready, start=1):
            draft.add_result(result)
            if draft.ends_run():
                run.results = ready[number:] + run.results  # in case that this is refused
                return
        if run.outstanding.inputs:
            draft.add_inputs()
            draft.add_cancel(CANCEL_GRACE_MS)
        draft.check_waiting(self.lease, MAX_LOST)

    def _carry_out(self, run: _Run, view: RunView) -> None:
        """Begin with the effects that may happen now: one at a time for each target."""
        for message_id, effect in list(run.outstanding.effects.items()):
            target = target_of(effect)
            if target not in run.under_way:
                del run.outstanding.effects[message_id]
                run.under_way[target] = message_id
                self._port.carry_out(view, message_id, effect)

    def _after_the_end(self, run_id: str, run: _Run) -> None:
        """A run has ended: what is left of it are effects, if anything is."""
        for message_id in run.outstanding.without_effects():
            run.outstanding.remove(message_id)
        self._stop_jobs(run, "run_ended")
        run.jobs.clear()
        run.results.clear()
        run.turn, run.turn_job, run.claiming = None, None, False
        if run.outstanding.all:
            self._advance(run_id, run)
        else:
            self._forget(run_id, run)

    def _dispatch(self, run: _Run, view: RunView) -> None:
        outstanding = run.outstanding
        if outstanding.waiting:
            for message_id, message in outstanding.take_startable(view, self.lease):
                self._start(run, step_job(view, message_id, message))
        if outstanding.turns and run.turn_job is None and run.turn is None:
            message_id = next(iter(outstanding.turns))
            del outstanding.turns[message_id]
            run.turn_job = turn_job(view, message_id)
            self._start(run, run.turn_job)

    def _start(self, run: _Run, job: Job) -> None:
        run.jobs[job.message_id] = job
        self._port.dispatch(job)

    # ---- answers ----

    def _finish(self, job: Job) -> _Run | None:
        """Take a job off the table; None if nobody waits for it."""
        run = self._runs.get(job.view.run_id)
        if job.over or run is None:
            return None
        self._end_job(run, job)
        return run

    @staticmethod
    def _end_job(run: _Run, job: Job) -> None:
        job.over = True
        run.jobs.pop(job.message_id, None)
        if run.turn_job is job:
            run.turn_job = None

    def _give_up(self, run: _Run, job: Job, problem: str) -> None:
        """An answer cannot be used: pause the run. Its step may have been executed, so one that
        must not be repeated has been interrupted."""
        step = job.view.steps.get(job.step_id) if job.kind == "step" else None
        if step is not None and step.is_at_most_once:
            self._ready(run, job, lost=problem)
        else:
            self._ready(run, job, pause=problem)

    def _ready(self, run: _Run, job: Job, *, lost: str = "", pause: str = "") -> None:
        if job.kind == "turn":
            job.view.turn_id = None  # the coroutine's state is not known any more
        if job.message_id in run.outstanding.all:
            run.results.append(ReadyResult(job.message_id, job, None, lost=lost, pause=pause))

    def _take_turn(self, run: _Run, job: Job, answer: Answer, instance: str) -> None:
        view = job.view
        turn_id = _checked_turn_id(answer.turn_id)
        if view is not run.view or job.base != view.length:
            run.outstanding.put_back(job.message_id)
            return
        events = check_outputs(view, answer.events)
        run.turn = ReadyTurn(job, events, answer.events, turn_id, instance)
        tokens = [event.meta["token"] for event in events if _is_chosen_hook(event)]
        if tokens:
            run.claiming = True
            self._port.claim(view, tokens, job)

    def _take_step(
        self, run: _Run, job: Job, answer: Answer, instance: str, stamp: dict[str, object]
    ) -> None:
        if not answer.events:
            raise InvalidProposalError("a step's answer without events")
        end = check_step_end(job.step_id, answer.events[0])
        end.meta.update(stamp)
        end.meta["attempt"] = job.attempt
        if end.type is EventType.STEP_RETRYING:
            end.meta["started_ms"] = job.started_ms
        result = ReadyResult(job.message_id, job, end)
        if answer.turn_id is not None and job.carry is not None and job.view is run.view:
            outputs = check_outputs(job.view, answer.events[1:])
            # User-chosen tokens must be claimed before the commit: a turn of its own does that.
            if not any(_is_chosen_hook(event) for event in outputs):
                turn_id = _checked_turn_id(answer.turn_id)
                result.carried = ReadyTurn(job, outputs, answer.events[1:], turn_id, instance)
        run.results.append(result)

    # ---- commits ----

    def _applied(
        self, run: _Run, draft: EntryDraft, entry: CommitEntry, answer: CommitAnswer
    ) -> None:
        view = draft.view
        for message_id in entry.handled:
            run.outstanding.remove(message_id)
            job = run.jobs.get(message_id)
            if job is not None:
                self._end_job(run, job)
                self._port.cancel(job, "not_needed")
        for encoded, event in zip(entry.events, draft.events, strict=True):
            self._port.recorded(view, event)
            view.apply(encoded, event)
        if draft.turn is not None and not view.status.is_terminal:
            view.advance(draft.consumed, draft.turn.turn_id, draft.turn.instance)
        added = (*entry.messages, *entry.effects) if entry.effects else entry.messages
        for message_id, body in zip(answer.message_ids, added, strict=True):
            run.outstanding.add(message_id, decode_message(body), self.lease.epoch)

    def _reload(self, run_id: str, run: _Run, draft: EntryDraft) -> None:
        """The view was wrong. Results in hand are offered again, if their message still exists."""
        run.results = [*draft.results, *run.results]
        run.done = {**draft.done, **run.done}
        if draft.turn is not None and draft.turn.job.kind == "turn":
            run.outstanding.put_back(draft.turn.job.message_id)
        if run.turn is not None:
            run.outstanding.put_back(run.turn.job.message_id)
        run.turn = None
        run.claiming = False
        run.view = None
        run.doubtful = frozenset(run.outstanding.all)
        self._port.load(run_id, again=True)

    def _keep_only(self, run: _Run, stored: dict[str, StoredMessage]) -> None:
        for message_id in run.doubtful - stored.keys():
            run.outstanding.remove(message_id)
            job = run.jobs.get(message_id)
            if job is not None:
                self._end_job(run, job)
                self._port.cancel(job, "handled_elsewhere")
        for message_id, message in stored.items():
            if message_id not in run.outstanding.all:
                run.outstanding.add(message_id, decode_message(message.body), message.epoch)
        run.results = [r for r in run.results if r.message_id in run.outstanding.all]
        run.done = {id_: p for id_, p in run.done.items() if id_ in run.outstanding.all}

    def _forget(self, run_id: str, run: _Run) -> None:
        """A run has ended or is gone: in the store nothing of it is outstanding."""
        self._stop_jobs(run, "run_ended")
        self._quiet.pop(run_id, None)
        del self._runs[run_id]

    def _stop_jobs(self, run: _Run, reason: str) -> None:
        for job in run.jobs.values():
            job.over = True
            self._port.cancel(job, reason)

    def _retire(self, run_id: str, run: _Run) -> None:
        """Keep the view of a quiet run for its next message, within bounds."""
        self._quiet.pop(run_id, None)
        self._quiet[run_id] = None
        while len(self._quiet) > self._max_views:
            oldest = next(iter(self._quiet))
            del self._quiet[oldest]
            candidate = self._runs.get(oldest)
            if candidate is not None and not candidate.outstanding.all and not candidate.draft:
                del self._runs[oldest]


def _is_chosen_hook(event: Event) -> bool:
    return event.type is EventType.HOOK_OPENED and bool(event.meta.get("chosen"))


def _has_start(inputs: Mapping[str, Message]) -> bool:
    return any(message.kind is MessageKind.START for message in inputs.values())


def _checked_turn_id(value: bytes | None) -> bytes:
    if value is None or len(value) != TURN_ID_BYTES:
        raise InvalidProposalError("a turn's answer without a turn id")
    return value
