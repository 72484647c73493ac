"""Talking to a live run by the name of one of its hooks: from outside, to what waits inside.

Three ways, one idea: to *send* is to hand something over; to *ask* is to send and wait for what the
workflow answers; to read a run's *state* (`fluvial.publish`) disturbs nobody.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from fluvial.codec import decode, encode
from fluvial.durations import Duration, to_seconds
from fluvial.errors import (
    AskRefusedError,
    AskUnansweredError,
    HookNotFoundError,
    InvalidRequestError,
)
from fluvial.events import Event, decode_event
from fluvial.hook_operations import CLOSED, answer_id
from fluvial.hook_tokens import named_token
from fluvial.ids import continued_run_id
from fluvial.ports import Platform
from fluvial.shapes import Shape
from fluvial.unguarded import monotonic, random_bytes

DEFAULT_WAIT: Final = 10.0  # seconds that a run gets to come to the hook
DEFAULT_TIMEOUT: Final = 30.0  # seconds that the workflow gets to answer
_MAX_RESUME_CHARACTERS: Final = 512
_WAIT_MS: Final = 20_000  # one question to the platform; a longer wait asks again


class Chain(Protocol):
    """A run, and those that go on in its place."""

    last_id: str


class Message:
    """One thing that is said to a run."""

    def __init__(
        self, served_by: Platform, run: Chain, name: str, value: Any, resume_id: str | None
    ) -> None:
        if resume_id is not None and not 1 <= len(resume_id) <= _MAX_RESUME_CHARACTERS:
            raise InvalidRequestError(f"a resume_id has 1 to {_MAX_RESUME_CHARACTERS} characters")
        self._platform = served_by
        self._run = run
        self._name = name
        self._plaintext = encode(value, "value")
        self._resume_id = resume_id if resume_id is not None else random_bytes(16).hex()
        self._position = 0

    async def deliver(self, wait: Duration, *, asks: bool) -> bool:
        """Hand it over; return whether it was new.

        Raises:
            HookNotFoundError, RunNotFoundError, RunClosedError
        """
        deadline = _Deadline(wait, "wait")
        while True:
            run_id = self._run.last_id
            token = named_token(run_id, self._name)
            sealed = self._platform.keys.for_run(run_id).seal(self._plaintext, "hook", token)
            arguments = {**self._arguments(run_id), "ask": asks, "wait_ms": deadline.left_ms()}
            said, _ = await self._platform.call("hook_send", arguments, sealed)
            outcome = said["outcome"]
            if outcome == "continued":
                self._run.last_id = continued_run_id(run_id)
            elif outcome != "not_open":
                self._position = int(said["position"])
                return bool(outcome == "accepted")
            elif deadline.is_over():
                raise HookNotFoundError(self._name, run_id)

    async def answer(self, timeout: Duration, shape: Shape) -> Any:  # noqa: ASYNC109 - as `Run.ask`
        """Return what the workflow answers.

        Raises:
            AskRefusedError, AskUnansweredError, TimeoutError, RunNotFoundError
        """
        deadline = _Deadline(timeout, "timeout")
        run_id = self._run.last_id
        while True:
            arguments = {
                **self._arguments(run_id),
                "start": self._position,
                "wait_ms": deadline.left_ms(),
            }
            found, body = await self._platform.call("hook_answer", arguments)
            if found["outcome"] == "answered":
                return self._outcome(run_id, decode_event(body), shape)
            if found["outcome"] == "ended":
                raise AskUnansweredError(self._name, f"the run has ended ({found['status']})")
            self._position = int(found["position"])
            if deadline.is_over():
                raise TimeoutError(
                    f"{run_id} has not answered within {deadline.seconds:g} seconds; it has what"
                    f" it was asked, and asking again with resume_id={self._resume_id!r} is the"
                    " same question"
                )

    def _arguments(self, run_id: str) -> dict[str, Any]:
        return {"run_id": run_id, "name": self._name, "resume_id": self._resume_id}

    def _outcome(self, run_id: str, event: Event, shape: Shape) -> Any:
        place = answer_id(event.id, self._resume_id)
        plaintext = self._platform.keys.for_run(run_id).open(event.payload, "hook_answer", place)
        if event.meta.get("ok"):
            return decode(plaintext, shape, "answer")
        reason = str(decode(plaintext, None, "reason"))
        if event.meta.get("why") == CLOSED:
            raise AskUnansweredError(self._name, reason)
        raise AskRefusedError(self._name, reason)


class _Deadline:
    """How long something may take from now on."""

    def __init__(self, duration: Duration, what: str) -> None:
        self.seconds = to_seconds(duration, what)
        self._at = monotonic() + self.seconds

    def left_ms(self) -> int:
        """Return how long the next question may wait."""
        return max(0, min(_WAIT_MS, round((self._at - monotonic()) * 1000)))

    def is_over(self) -> bool:
        """Whether the time is up."""
        return monotonic() >= self._at
