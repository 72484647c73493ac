"""A synchronous client of the control API, for tools and scripts outside an instance.

with Client("http://127.0.0.1:8081", token) as fluvial:
    run = fluvial.start("orders", "fulfil", ["o-1", 4200], key="o-1")
    print(fluvial.result(run.run_id, wait_seconds=30).result)
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast
from urllib.parse import quote

import httpx

from fluvial.errors import FluvialError, InvalidRequestError, UnavailableError
from fluvial.replay_reports import ReplayReport, RunCheck
from fluvial.unguarded import monotonic

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 30.0
_BUILD_SECONDS: Final = 960.0  # between two lines of a build's log; the gateway gives up before
_CHECK_SECONDS: Final = 300.0  # between two runs of a replay check: a cold start and a long log
_FOLLOW_SECONDS: Final = 60.0  # the gateway says that it is still there every 15 seconds
_LONGEST_WAIT_SECONDS: Final = 60.0  # of one request for a result; longer waits ask again
_NO_CONTENT: Final = 204  # to a follower: the run has ended and there is nothing more
_RECONNECTS: Final = 5  # in a row, of a follower that hears nothing new
_RECONNECT_SECONDS: Final = 1.0
_MEDIA_TYPE: Final = "application/zstd"
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "terminated", "continued"})


class ProblemError(FluvialError):
    """The platform refused a request; `problem` is its problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title = str(problem.get("title") or f"the platform answered with status {status}")
        detail = problem.get("detail")
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status = status
        self.problem = dict(problem)

    @property
    def problem_code(self) -> str:
        """The stable code of the problem, "error" where it has none."""
        return str(self.problem.get("code", self.code))


@dataclass(frozen=True, slots=True)
class Deployed:
    """The end of a deploy that went well."""

    deployment: dict[str, Any]
    url: str
    created: bool  # False: the app was at this deployment already


@dataclass(frozen=True, slots=True)
class Started:
    """An accepted start."""

    run_id: str
    outcome: str  # accepted, or duplicate: the key was started before


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run stands, with its result or error once it has ended."""

    run_id: str
    status: str
    result: Any = None
    error: Any = None
    withheld: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.status in _ENDED


class Client:
    """Speaks to one control API. Not safe for threads that share it during `close`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """`url` is where the control API listens, such as http://127.0.0.1:8081."""
        headers = {b"authorization": f"Bearer {token}".encode()} if token else {}
        self._url = url
        try:
            self._http = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                trust_env=False,  # the control API is local: no proxy has anything to do with it
                # Loading the certificates takes longer than a whole command does without TLS.
                verify=not url.startswith("http://"),
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidRequestError(f"{url!r} is not a URL: {error}") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Apps and deployments

    def deploy(
        self, archive: Path, digest: str, *, name: str | None = None, promote: bool = True
    ) -> Iterator[str | Deployed]:
        """Upload an archive; yield the build's log line by line, then what was deployed.

        Raises:
            ProblemError: it was refused.
            UnavailableError: the platform cannot be reached, or went away half way.
        """
        parameters = {"promote": "true" if promote else "false", **({"name": name} if name else {})}
        headers = {"x-fluvial-bundle-digest": digest, "content-type": _MEDIA_TYPE}
        headers["content-length"] = str(archive.stat().st_size)
        with archive.open("rb") as body, self._talking():
            request = self._http.stream(
                "POST",
                "/v1/deployments",
                params=parameters,
                headers=headers,
                content=iter(lambda: body.read(1 << 16), b""),
                timeout=httpx.Timeout(_BUILD_SECONDS, connect=_CONNECT_SECONDS),
            )
            with request as response:
                _check(response)
                yield from _build_lines(response)

    def apps(self) -> list[dict[str, Any]]:
        """Return all apps."""
        return _items(self._get("/v1/apps"), "apps")

    def app(self, name: str) -> dict[str, Any]:
        """Return one app."""
        return self._get(f"/v1/apps/{_part(name)}")

    def deployments(self, app: str | None = None) -> list[dict[str, Any]]:
        """Return deployments, newest first."""
        return _items(self._get("/v1/deployments", app=app), "deployments")

    def deployment(self, deployment: str) -> dict[str, Any]:
        """Return one deployment."""
        return self._get(f"/v1/deployments/{_part(deployment)}")

    def promote(self, app: str, deployment: str) -> dict[str, Any]:
        """Make a deployment the app's production; return the app."""
        return self._post(f"/v1/apps/{_part(app)}/promote", {"deployment": deployment})

    def replay_check(
        self,
        deployment: str,
        *,
        last: int | None = None,
        workflow: str | None = None,
        limit: int | None = None,
        inputs: bool = False,
    ) -> Iterator[RunCheck | ReplayReport]:
        """Check whether runs of the deployment's app would go on there; yield each as it is done,
        then the report.

        Args:
            deployment: it need not be promoted; runs are not disturbed.
            last: check the last runs that have ended; None: all that have not.
            workflow: only runs of this one.
            limit: how many at most.
            inputs: compare the arguments of steps and results too; differences are warnings.

        Raises:
            ProblemError: it was refused, or stopped.
            UnavailableError: the platform cannot be reached, or went away half way.
        """
        scope = "live" if last is None else {"last": last}
        options = {"scope": scope, "workflow": workflow, "limit": limit, "inputs": inputs}
        body = {name: value for name, value in options.items() if value is not None}
        with (
            self._talking(),
            self._http.stream(
                "POST",
                f"/v1/deployments/{_part(deployment)}/replay-check",
                json=body,
                timeout=httpx.Timeout(_CHECK_SECONDS, connect=_CONNECT_SECONDS),
            ) as response,
        ):
            _check(response)
            yield from _report_lines(response)

    def rollback(self, app: str) -> dict[str, Any]:
        """Go back to the previous production; return the app."""
        return self._post(f"/v1/apps/{_part(app)}/rollback", {})

    # Runs

    def start(
        self,
        app: str,
        workflow: str,
        arguments: Sequence[Any] = (),
        keywords: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> Started:
        """Start a run; with `key`, equal starts are one run."""
        path = f"/v1/apps/{_part(app)}/workflows/{_part(workflow)}/runs"
        headers = {"idempotency-key": key} if key else {}
        body = {"args": list(arguments), "kwargs": dict(keywords or {})}
        answer = self._post(path, body, headers)
        return Started(str(answer["run_id"]), str(answer.get("outcome", "accepted")))

    def runs(
        self,
        *,
        app: str | None = None,
        workflow: str | None = None,
        status: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Return a page: `runs`, newest first, and the `cursor` of the next page."""
        return self._get(
            "/v1/runs", app=app, workflow=workflow, status=status, cursor=cursor, limit=limit
        )

    def run(self, run_id: str, *, data: bool = False) -> dict[str, Any]:
        """Return one run, decrypted where `data` is asked for and allowed."""
        return self._get(f"/v1/runs/{_part(run_id)}", data=_flag(data))

    def events(
        self, run_id: str, *, data: bool = False, start: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Yield what the event log holds now, from a position on."""
        path, position = f"/v1/runs/{_part(run_id)}/events", start
        while True:
            found = _items(self._get(path, data=_flag(data), start=position), "events")
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
        position, failures = start, 0
        while True:
            heard = False
            try:
                for event in self._follow_once(run_id, position, data=data):
                    heard, position = True, int(event["position"]) + 1
                    yield event
            except _RunEnded:
                return
            except UnavailableError:
                if failures >= _RECONNECTS:
                    raise
            failures = 0 if heard else failures + 1
            if not heard:
                time.sleep(_RECONNECT_SECONDS)

    def result(self, run_id: str, *, wait_seconds: float = 0.0) -> Outcome:
        """Return where the run stands, after waiting for its end for up to `wait_seconds`."""
        deadline = monotonic() + wait_seconds
        while True:
            left = max(0.0, min(_LONGEST_WAIT_SECONDS, deadline - monotonic()))
            answer = self._get(
                f"/v1/runs/{_part(run_id)}/result",
                timeout_seconds=left + _ANSWER_SECONDS,
                wait=round(left),
            )
            outcome = Outcome(
                run_id,
                str(answer["status"]),
                answer.get("result"),
                answer.get("error"),
                answer.get("withheld"),
            )
            if outcome.is_final or monotonic() >= deadline or round(left) == 0:
                return outcome

    def cancel(self, run_id: str, reason: str = "") -> None:
        """Ask a run to end after its clean-up code."""
        self._post(f"/v1/runs/{_part(run_id)}/cancel", {"reason": reason} if reason else {})

    def terminate(self, run_id: str, reason: str = "") -> None:
        """End a run at once."""
        self._post(f"/v1/runs/{_part(run_id)}/terminate", {"reason": reason} if reason else {})

    def resume(self, run_id: str, *, deployment: str | None = None) -> str:
        """Let a paused run go on, on `deployment` if named (an id, or "latest" for production).

        Returns the id of the deployment on which it goes on.
        """
        body = {} if deployment is None else {"deployment": deployment}
        return str(self._post(f"/v1/runs/{_part(run_id)}/resume", body).get("deployment", ""))

    def resume_hook(
        self, app: str, token: str, payload: Any, *, resume_id: str | None = None
    ) -> dict[str, Any]:
        """Deliver a payload to an open hook; equal resume ids are one delivery."""
        headers = {"x-fluvial-resume-id": resume_id} if resume_id else {}
        return self._post(f"/v1/hooks/{_part(app)}/{_part(token)}", payload, headers)

    # Crons

    def crons(self, app: str | None = None) -> list[dict[str, Any]]:
        """Return the crons of production deployments, by app and name."""
        return _items(self._get("/v1/crons", app=app), "crons")

    def cron(self, app: str, cron: str) -> dict[str, Any]:
        """Return one cron with what became of its last ticks."""
        return self._get(_cron(app, cron))

    def cron_ticks(self, app: str, cron: str, *, limit: int = 5) -> list[str]:
        """Return when a cron's next ticks are due."""
        ticks = self._get(f"{_cron(app, cron)}/ticks", limit=limit)["ticks"]
        return cast("list[str]", ticks)

    def pause_cron(self, app: str, cron: str) -> dict[str, Any]:
        """Let no tick start a run until the cron is resumed; return the cron."""
        return self._post(f"{_cron(app, cron)}/pause", {})

    def resume_cron(self, app: str, cron: str) -> dict[str, Any]:
        """Let a cron go on with its next tick; return the cron."""
        return self._post(f"{_cron(app, cron)}/resume", {})

    def trigger_cron(self, app: str, cron: str, *, key: str | None = None) -> Started:
        """Start a run of a cron now; with `key`, equal triggers are one run."""
        headers = {"idempotency-key": key} if key else {}
        answer = self._post(f"{_cron(app, cron)}/trigger", {}, headers)
        return Started(str(answer["run_id"]), str(answer["outcome"]))

    # The platform

    def create_token(self, name: str, scopes: Sequence[str]) -> dict[str, Any]:
        """Return a new token; it is shown this once."""
        return self._post("/v1/tokens", {"name": name, "scopes": list(scopes)})

    def instances(self) -> dict[str, Any]:
        """Return what runs now."""
        return self._get("/v1/instances")

    def usage(self) -> dict[str, Any]:
        """Return what was used, by app."""
        return self._get("/v1/usage")

    def info(self) -> dict[str, Any]:
        """Return what the platform says about itself."""
        return self._get("/v1/info")

    # Requests

    def _get(
        self, path: str, *, timeout_seconds: float = _ANSWER_SECONDS, **parameters: Any
    ) -> dict[str, Any]:
        wanted = {name: value for name, value in parameters.items() if value is not None}
        with self._talking():
            response = self._http.get(
                path,
                params=wanted,
                timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            )
            return _document(response)

    def _post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        with self._talking():
            return _document(self._http.post(path, json=body, headers=dict(headers or {})))

    def _follow_once(self, run_id: str, position: int, *, data: bool) -> Iterator[dict[str, Any]]:
        parameters = {"start": str(position), **({"data": "true"} if data else {})}
        with (
            self._talking(),
            self._http.stream(
                "GET",
                f"/v1/runs/{_part(run_id)}/events",
                params=parameters,
                headers={"accept": "text/event-stream"},
                timeout=httpx.Timeout(_FOLLOW_SECONDS, connect=_CONNECT_SECONDS),
            ) as response,
        ):
            if response.status_code == _NO_CONTENT:
                raise _RunEnded
            _check(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield cast("dict[str, Any]", json.loads(line[len("data:") :]))

    @contextmanager
    def _talking(self) -> Generator[None, None, None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise UnavailableError(f"{self._url} did not answer in time") from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"{self._url} cannot be reached ({str(error) or type(error).__name__}): "
                "is `fluvial up` running there?"
            ) from error
        except httpx.InvalidURL as error:
            raise InvalidRequestError(f"{self._url!r} is not a URL: {error}") from error


class _RunEnded(Exception):  # noqa: N818 - an end, not an error
    """There are no more events and there never will be."""


def _build_lines(response: httpx.Response) -> Iterator[str | Deployed]:
    for line in response.iter_lines():
        item = cast("dict[str, Any]", json.loads(line)) if line.strip() else {}
        if "log" in item:
            yield str(item["log"])
        elif "problem" in item:
            problem = cast("dict[str, Any]", item["problem"])
            raise ProblemError(int(problem.get("status", 500)), problem)
        elif "deployment" in item:
            yield Deployed(item["deployment"], str(item["url"]), bool(item["created"]))
            return
    raise UnavailableError("the platform went away before the deploy had ended: deploy again")


def _report_lines(response: httpx.Response) -> Iterator[RunCheck | ReplayReport]:
    for line in response.iter_lines():
        item = cast("dict[str, Any]", json.loads(line)) if line.strip() else {}
        if "run" in item:
            yield RunCheck.from_json(item["run"])
        elif "problem" in item:
            problem = cast("dict[str, Any]", item["problem"])
            raise ProblemError(int(problem.get("status", 500)), problem)
        elif "report" in item:
            yield ReplayReport.from_json(item["report"])
            return
    raise UnavailableError("the platform went away before the check had ended: check again")


def _document(response: httpx.Response) -> dict[str, Any]:
    _check(response)
    try:
        document: Any = response.json()
    except ValueError as error:
        raise UnavailableError(f"{response.url} did not answer with JSON") from error
    if not isinstance(document, dict):
        raise UnavailableError(f"{response.url} did not answer with a JSON object")
    return cast("dict[str, Any]", document)


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        problem: Any = response.json()
    except ValueError:
        problem = None
    fields = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}
    raise ProblemError(response.status_code, fields)


def _items(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", document.get(key, []))


def _cron(app: str, cron: str) -> str:
    return f"/v1/apps/{_part(app)}/crons/{_part(cron)}"


def _part(text: str) -> str:
    """Return one part of a path; what would change the path's meaning is escaped."""
    if text in ("", ".", ".."):
        raise InvalidRequestError(f"{text!r} is not a name")
    return quote(text, safe="")


def _flag(value: bool) -> str | None:
    return "true" if value else None
