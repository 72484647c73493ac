"""What must hold at every moment of a schedule; a watcher of the engine's owners."""

from __future__ import annotations

from fluvial.events import Event, EventType, decode_event
from fluvial_queue.contract import CommitAnswer, CommitEntry, CommitOutcome, RunStatus
from fluvial_queue.jobs import Job
from fluvial_queue.kit import Engine
from fluvial_queue.kit.owner import Owner
from fluvial_queue.views import RunView

LOST_LIMIT = 3  # executions cut off before a run is paused: few, so that it happens


class Watch:
    """Checks each dispatch and each commit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # (run, message) → the newest epoch that dispatched it
        self._started_by: dict[tuple[str, str], int] = {}
        self._done: set[tuple[int, str, int]] = set()  # (epoch, run, step): that owner knows it

    def dispatched(self, owner: Owner, job: Job) -> None:
        """Nothing of a paused run goes on; no step starts that must not."""
        assert job.view.status is not RunStatus.PAUSED, "a paused run goes on"
        job.lost_limit = LOST_LIMIT
        if job.kind == "step":
            self._check_start(owner, job)

    def committed(self, owner: Owner, entry: CommitEntry, answer: CommitAnswer) -> None:
        """A commit is applied as a whole, and for the owner of the newest lease alone (P4)."""
        if answer.outcome is not CommitOutcome.OK:
            return
        log = self._engine.store.backend.runs[entry.run_id].log
        assert len(log) >= entry.base, "the log is shorter than its owner knows it"
        assert log[entry.base :] == list(entry.events), "the log has something else"
        newest = self._engine.store.backend.partition(owner.lease.partition).epoch
        assert owner.lease.epoch == newest, "a stale owner committed"
        for encoded in entry.events:
            event = decode_event(encoded)
            if event.type in (EventType.STEP_COMPLETED, EventType.STEP_FAILED):
                self._done.add((owner.lease.epoch, entry.run_id, event.id))

        for token, _ in entry.open_hooks:
            backend = self._engine.store.backend
            holders = [r for r in backend.runs.values() if r.hooks.get(token) is not None]
            assert len(holders) == 1, f"{len(holders)} runs hold the token {token!r}"

    def recorded(self, owner: Owner, view: RunView, event: Event) -> None:
        """Owners learn of events in the order of the log."""

    def _check_start(self, owner: Owner, job: Job) -> None:
        """A step never starts twice at a time at one owner, nor after its result was committed
        there (P2); what an earlier owner may have started does not start without a record (P3)."""
        run_id, epoch = job.view.run_id, owner.lease.epoch
        assert (epoch, run_id, job.step_id) not in self._done, "a finished step starts again"
        same = [
            other
            for other in owner.sequencer.jobs()
            if (other.view.run_id, other.step_id, other.kind) == (run_id, job.step_id, "step")
        ]
        assert same == [job], "a step starts twice at a time"
        message = run_id, job.message_id
        earlier = self._started_by.get(message, 0)
        assert earlier == 0 or earlier >= epoch, "a step starts again without a record"
        self._started_by[message] = max(earlier, epoch)
