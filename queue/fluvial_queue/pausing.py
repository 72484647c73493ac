"""Pauses, in an entry: a run stands still until somebody resumes it.

A pause that nobody asked for has a code, which says what kind of trouble the run is in.
"""

from __future__ import annotations

from typing import Final

from fluvial.events import Event, EventType
from fluvial_queue.contract import RunStatus
from fluvial_queue.drafts import author_of
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.outputs import OutputDraft
from fluvial_queue.views import step_body

POISON: Final = "poison"
EXHAUSTED: Final = "exhausted"
OTHER: Final = "other"
PAUSE_CODES: Final = frozenset(
    {
        POISON,  # executions of a step or a turn were cut off again and again
        EXHAUSTED,  # a step has used up its attempts, and waits for help
        "diverged",  # the code does not match the log
        "invalid_proposal",  # an instance answered what it may not
        "import_failed",  # the deployment's code cannot be imported
        "deployment_not_found",
        "bundle_missing",
        "start_failed",
        "too_large",  # what an instance would have to be told does not fit into a frame
        "keys_frozen",
        "key_missing",
        "key_destroyed",
        OTHER,
    }
)


class PausableDraft(OutputDraft):
    """A draft that pauses and resumes."""

    def add_pause(self) -> None:
        """Take in requests to pause; before the run has begun they wait. What asks to resume a run
        that is not paused is moot: requests count in the order in which they were made."""
        if self._has_not_begun() or self.view.awaits_fork:
            return
        for message_id, message in self._outstanding.inputs.items():
            if message_id in self._handled:
                continue
            if message.kind is MessageKind.PAUSE:
                reason = str(message.meta.get("reason") or "requested")
                self.pause(message_id, reason, author=author_of(message))
            elif message.kind is MessageKind.RESUME:
                if self._paused:
                    return  # this comes first
                self._handled[message_id] = None

    def pause(
        self,
        message_id: str,
        reason: str,
        *,
        code: str = "",
        author: dict[str, str] | None = None,
    ) -> None:
        """Stop the run until somebody resumes it; what could be dispatched leaves the queue.

        `code`: what kind of trouble it is in; empty: somebody wants it to pause."""
        self._handled[message_id] = None
        if self._paused:
            return
        self._paused = True
        self._status = RunStatus.PAUSED
        self._reason = reason
        kind = {"code": code if code in PAUSE_CODES else OTHER} if code else {}
        meta = {"reason": reason, **kind, **(author or {})}
        self._add(Event(EventType.RUN_PAUSED, self._now_ms, meta=meta))
        self._handled.update(dict.fromkeys(self._outstanding.waiting))
        self._handled.update(dict.fromkeys(self._outstanding.turns))
        self._messages.clear()

    def _must_stay_paused(self) -> bool:
        """Whether this entry itself changes what a resume goes by (see `_resume`)."""
        return bool(self.results) or self.view.status is not RunStatus.PAUSED

    def _resume(self, message: Message | None) -> None:
        """Go on, on another deployment if `message` names one; None: a cancel resumes the run.

        Ask again for every step whose message a pause took out of the queue.

        What is missing is read off the view, so nothing in the same entry may have changed a step.
        A retry's timer may have fired, and its message been dropped, while the run was paused: the
        log does not say, so the timer is dropped and the step asked for now. If it has just fired,
        there are two messages for one attempt, of which the second is moot.
        """
        self._paused = False
        self._status = RunStatus.RUNNING
        self._reason = ""
        asked = {} if message is None else message.meta
        meta = {"by": asked["by"]} if asked.get("by") else {}
        if asked.get("deployment", self.view.deployment) != self.view.deployment:
            self._deployment = meta["deployment"] = str(asked["deployment"])
        self._add(Event(EventType.RUN_RESUMED, self._now_ms, meta=meta))
        for step_id, step in self.view.steps.items():
            if (step_id, step.attempt) in self._outstanding.steps or step_id in self._ended:
                continue
            if step.retry_timer is not None:
                self._drop_timers.append(step.retry_timer)
            self._messages.append(step_body(self.view.run_id, step_id, step.attempt))
