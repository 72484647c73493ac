"""The part of `fluvial.client.Client` that is about runs: begin, find, read and steer them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fluvial.control_api import ANSWER_SECONDS, ControlApi, items, path_part
from fluvial.options import DEFAULT_OPTIONS, StartOptions
from fluvial.stream_entries import DEFAULT_STREAM
from fluvial.unguarded import monotonic

_LONGEST_WAIT_SECONDS: Final = 60.0  # of one request for a result; longer waits ask again
_PAGE: Final = 100
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "terminated", "continued"})


@dataclass(frozen=True, slots=True)
class Started:
    """An accepted start."""

    run_id: str
    outcome: str  # accepted; duplicate: the key was started before; existing: the singleton's run


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run stands, with its result or error once it has ended."""

    run_id: str
    status: str
    result: Any = None
    error: Any = None
    withheld: str | None = None
    unreadable: str | None = None  # why nobody can read the result or the error

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.status in _ENDED


class RunClient:
    """Runs, through one control API."""

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    def start(
        self,
        app: str,
        workflow: str,
        arguments: Sequence[Any] = (),
        keywords: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        options: StartOptions = DEFAULT_OPTIONS,
        deployment: str | None = None,
    ) -> Started:
        """Start a run; with `key`, equal starts are one run.

        Args:
            app, workflow, arguments, keywords: what to execute.
            key: the same key and arguments name the same run.
            options: as of `fluvial.start`; what is only for child runs does nothing here.
            deployment: the id of the one on which to start it; default: the app's production.

        Raises:
            ProblemError: it was refused; `start_conflict` or `singleton_alive` names the other run.
        """
        path = f"/v1/apps/{path_part(app)}/workflows/{path_part(workflow)}/runs"
        body = {"args": list(arguments), "kwargs": dict(keywords or {}), **options.to_request()}
        return self._begin(path, body, key, deployment)

    def runs(
        self,
        *,
        app: str | None = None,
        workflow: str | None = None,
        status: str | Sequence[str] | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        tags: Mapping[str, str] | None = None,
        deployment: str | None = None,
        parent: str | None = None,
        root: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Return a page: `runs`, newest first, and the `cursor` of the next page.

        Args:
            app, workflow: only runs of these.
            status: only runs with this status, or one of these.
            since, until: only runs created then or later, or before: a moment, or how long ago,
                such as "2h".
            tags: only runs that have all of these.
            deployment: only runs that are on this one, or were when they ended.
            parent: only the children of this run.
            root: only this run and its children, and theirs.
            cursor: from the page before; a page may be short and still have a next one.
            limit: how many at most.
        """
        return self._api.get(
            "/v1/runs",
            app=app,
            workflow=workflow,
            status=_joined(status),
            since=moment_text(since),
            until=moment_text(until),
            tag=_tags(tags),
            deployment=deployment,
            parent=parent,
            root=root,
            cursor=cursor,
            limit=limit,
        )

    def dead_letters(
        self,
        *,
        app: str | None = None,
        workflow: str | None = None,
        code: str | Sequence[str] | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield runs that the platform has paused, newest first, each with a `code` and since when
        (`paused_at`); the filters are those of `runs`.

        Args:
            code: only those in this trouble, such as "poison", or in one of these.
            limit: how many at most.
        """
        cursor, left = None, limit
        while left != 0:
            page = self._api.get(
                "/v1/dead-letters",
                app=app,
                workflow=workflow,
                code=_joined(code),
                since=moment_text(since),
                until=moment_text(until),
                tag=_tags(tags),
                cursor=cursor,
                limit=_PAGE if left is None else min(left, _PAGE),
            )
            letters = items(page, "dead_letters")
            yield from letters
            cursor = page["cursor"]
            left = None if left is None else left - len(letters)
            if cursor is None:
                return

    def run(self, run_id: str, *, data: bool = False) -> dict[str, Any]:
        """Return one run, decrypted where `data` is asked for and allowed."""
        return self._api.get(_run_path(run_id), data=_flag(data))

    def waiting(self, run_id: str, *, data: bool = False) -> dict[str, Any]:
        """Return why a run waits: a `sentence`, and what it `waits_for`; with `data`, and where
        that is allowed, secret tokens of hooks too."""
        return self._api.get(f"{_run_path(run_id)}/waiting", data=_flag(data))

    def events(
        self, run_id: str, *, data: bool = False, start: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield what the event log holds now, from a position on."""
        path, position = f"{_run_path(run_id)}/events", start
        while True:
            found = items(self._api.get(path, data=_flag(data), start=position), "events")
            yield from found
            if not found:
                return
            position += len(found)

    def follow(
        self, run_id: str, *, data: bool = False, start: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield events as they happen until the run has ended; reconnects where it must.

        Raises:
            UnavailableError: the platform stays away.
        """
        path = f"{_run_path(run_id)}/events"
        return self._api.follow(path, start, {"data": "true"} if data else {})

    def streams(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's streams in the order in which they were made."""
        return items(self._api.get(f"{_run_path(run_id)}/streams"), "streams")

    def stream(
        self, run_id: str, name: str = DEFAULT_STREAM, *, start: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield what a stream holds now: its entries from a position on, or the last -`start`."""
        path, position = _stream_path(run_id, name), start
        while True:
            page = self._api.get(path, start=position)
            yield from items(page, "entries")
            position = int(page["next"])
            if position >= int(page["length"]):
                return

    def follow_stream(
        self, run_id: str, name: str = DEFAULT_STREAM, *, start: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield a stream's entries as they are written until it is closed; reconnects where it
        must.

        Raises:
            UnavailableError: the platform stays away.
        """
        return self._api.follow(_stream_path(run_id, name), start, {})

    def result(self, run_id: str, *, wait_seconds: float = 0.0) -> Outcome:
        """Return where the run stands, after waiting for its end for up to `wait_seconds`."""
        deadline = monotonic() + wait_seconds
        while True:
            left = max(0.0, min(_LONGEST_WAIT_SECONDS, deadline - monotonic()))
            answer = self._api.get(
                f"{_run_path(run_id)}/result",
                timeout_seconds=left + ANSWER_SECONDS,
                wait=round(left),
            )
            outcome = Outcome(
                run_id,
                str(answer["status"]),
                answer.get("result"),
                answer.get("error"),
                answer.get("withheld"),
                _reason(answer.get("unreadable")),
            )
            if outcome.is_final or monotonic() >= deadline or round(left) == 0:
                return outcome

    def cancel(self, run_id: str, reason: str = "") -> None:
        """Ask a run to end after its clean-up code."""
        self._steer(run_id, "cancel", {"reason": reason} if reason else {})

    def terminate(self, run_id: str, reason: str = "") -> None:
        """End a run at once."""
        self._steer(run_id, "terminate", {"reason": reason} if reason else {})

    def pause(self, run_id: str, reason: str = "") -> None:
        """Start nothing more of a run until it is resumed; what is under way goes on."""
        self._steer(run_id, "pause", {"reason": reason} if reason else {})

    def resume(self, run_id: str, *, deployment: str | None = None) -> str:
        """Let a paused run go on, on `deployment` if named (an id, or "latest" for production).

        Returns the id of the deployment on which it goes on.
        """
        body = {} if deployment is None else {"deployment": deployment}
        return str(self._steer(run_id, "resume", body).get("deployment", ""))

    def wake(self, run_id: str, *, timer: int | None = None) -> None:
        """End a run's sleeps now, or the one timer that is named; a run whose beginning is delayed
        begins."""
        self._steer(run_id, "wake", {} if timer is None else {"timer": timer})

    def retry(self, run_id: str) -> None:
        """Make the attempts of steps now that wait for their time."""
        self._steer(run_id, "retry", {})

    def tag(self, run_id: str, tags: Mapping[str, str | None]) -> None:
        """Change a run's tags; None takes one away."""
        self._steer(run_id, "tag", {"tags": dict(tags)})

    def fork(
        self,
        run_id: str,
        step: int | str,
        *,
        deployment: str | None = None,
        key: str | None = None,
    ) -> Started:
        """Start a run that goes on from a step of this one, which is left alone.

        Args:
            run_id: whose results are kept: those from before the step's own.
            step: its id, or its name where only one step has it; 0: from the beginning.
            deployment: where it goes on: an id, or "latest" for production; default: the run's.
            key: the same key and plan name the same fork.

        Raises:
            ProblemError: it was refused; `step_not_found` and `step_ambiguous` list the steps.
        """
        return self._begin(f"{_run_path(run_id)}/fork", {"from": step}, key, deployment)

    def retry_failed(
        self, run_id: str, *, deployment: str | None = None, key: str | None = None
    ) -> Started:
        """Start a run that goes on from the step of this one that failed last; as `fork`."""
        return self._begin(f"{_run_path(run_id)}/retry-failed", {}, key, deployment)

    def rerun(
        self,
        run_id: str,
        arguments: Sequence[Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
        *,
        deployment: str | None = None,
        key: str | None = None,
    ) -> Started:
        """Start a run as this one was started: with its input, or with these arguments.

        Args:
            run_id: whose workflow, tags, priority, retention and time to the deadline it has.
            arguments, keywords: instead of its input, if either is given.
            deployment: an id, or "latest" for production; default: the run's own.
            key: the same key and plan name the same run.
        """
        body: dict[str, Any] = {}
        if arguments is not None or keywords is not None:
            body = {"args": list(arguments or ()), "kwargs": dict(keywords or {})}
        return self._begin(f"{_run_path(run_id)}/rerun", body, key, deployment)

    def delete_run(self, run_id: str) -> None:
        """Delete a run that has ended, and its log, at once and for good."""
        self._api.delete(_run_path(run_id))

    def resume_hook(
        self, app: str, token: str, payload: Any, *, resume_id: str | None = None
    ) -> dict[str, Any]:
        """Deliver a payload to an open hook; equal resume ids are one delivery."""
        path = f"/v1/hooks/{path_part(app)}/{path_part(token)}"
        return self._api.post(path, payload, _resuming(resume_id))

    def open_hooks(self, app: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield open hooks, those of the newest runs first, each with its `run_id`; of a run with
        very many, the first ones."""
        cursor: str | None = None
        while True:
            page = self._api.get("/v1/hooks", app=app, cursor=cursor)
            for run in items(page, "runs"):
                yield from _hooks_of(run)
            cursor = page.get("cursor")
            if cursor is None:
                return

    def hooks(self, run_id: str, *, data: bool = False) -> Iterator[dict[str, Any]]:
        """Yield a run's open hooks, with their metadata where `data` is asked for and allowed."""
        start: int | None = 0
        while start is not None:
            page = self._api.get(f"{_run_path(run_id)}/hooks", data=_flag(data), start=start)
            yield from _hooks_of(page)
            start = page.get("next")

    def send(
        self,
        run_id: str,
        hook: str,
        value: Any = None,
        *,
        resume_id: str | None = None,
        wait_seconds: float = 10.0,
    ) -> dict[str, Any]:
        """Hand a value to a run's hook, by its name or its id.

        Args:
            run_id, hook, value: what is handed to whom.
            resume_id: sending again with the same id is the same sending.
            wait_seconds: how long to wait for a hook of that name to open.
        """
        path = f"{_hook_path(run_id, hook)}?wait={_seconds(wait_seconds)}"
        timeout = wait_seconds + ANSWER_SECONDS
        return self._api.post(path, value, _resuming(resume_id), timeout_seconds=timeout)

    def ask(
        self,
        run_id: str,
        hook: str,
        value: Any = None,
        *,
        resume_id: str | None = None,
        timeout_seconds: float = 30.0,
        wait_seconds: float = 10.0,
    ) -> dict[str, Any]:
        """Hand a value to a run's hook and wait for what the workflow answers.

        Returns a document with the `answer`, or that it is `withheld` or `unreadable`.

        Args:
            run_id, hook, value: what is asked of whom.
            resume_id: asking again with the same id is the same question.
            timeout_seconds: how long to wait for the answer.
            wait_seconds: how long to wait for a hook of that name to open.

        Raises:
            ProblemError: `ask_refused`, `ask_unanswered`, `ask_timeout`, or it was not accepted.
        """
        waits = f"wait={_seconds(wait_seconds)}&timeout={max(1, _seconds(timeout_seconds))}"
        return self._api.post(
            f"{_hook_path(run_id, hook)}/ask?{waits}",
            value,
            _resuming(resume_id),
            timeout_seconds=wait_seconds + timeout_seconds + ANSWER_SECONDS,
        )

    def _begin(
        self, path: str, body: Mapping[str, Any], key: str | None, deployment: str | None
    ) -> Started:
        where = {} if deployment is None else {"deployment": deployment}
        headers = {"idempotency-key": key} if key else {}
        answer = self._api.post(path, {**body, **where}, headers)
        return Started(str(answer["run_id"]), str(answer.get("outcome", "accepted")))

    def _steer(self, run_id: str, how: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._api.post(f"{_run_path(run_id)}/{how}", dict(body))


def _run_path(run_id: str) -> str:
    return f"/v1/runs/{path_part(run_id)}"


def _joined(names: str | Sequence[str] | None) -> str | None:
    return names if names is None or isinstance(names, str) else ",".join(names)


def _tags(tags: Mapping[str, str] | None) -> list[str] | None:
    return [f"{name}={value}" for name, value in (tags or {}).items()] or None


def moment_text(value: str | datetime | None) -> str | None:
    """Return a moment as the control API takes it; text stays as it is."""
    return value.isoformat() if isinstance(value, datetime) else value


def _stream_path(run_id: str, name: str) -> str:
    return f"{_run_path(run_id)}/streams/{path_part(name)}"


def _hook_path(run_id: str, hook: str) -> str:
    return f"{_run_path(run_id)}/hooks/{path_part(hook)}"


def _hooks_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"run_id": run["run_id"], **hook} for hook in items(run, "hooks")]


def _resuming(resume_id: str | None) -> dict[str, str]:
    return {"x-fluvial-resume-id": resume_id} if resume_id else {}


def _seconds(seconds: float) -> int:
    return math.ceil(seconds)


def _reason(unreadable: Mapping[str, Any] | None) -> str | None:
    """Return why the result (or the error) cannot be read; None: it can."""
    return next((str(why["message"]) for why in (unreadable or {}).values()), None)


def _flag(value: bool) -> str | None:
    return "true" if value else None
