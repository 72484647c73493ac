"""A synchronous client of the control API, for tools and scripts outside an instance.

with Client("http://127.0.0.1:8081", token) as fluvial:
    run = fluvial.start("orders", "fulfil", ["o-1", 4200], key="o-1")
    print(fluvial.result(run.run_id, wait_seconds=30).result)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import httpx

from fluvial.app_client import AppClient
from fluvial.bulk_client import BulkProgress as BulkProgress  # parts of this module's surface
from fluvial.bulk_client import BulkRun as BulkRun
from fluvial.bulk_client import RunFilter as RunFilter
from fluvial.control_api import (
    CONNECT_SECONDS,
    ControlApi,
    check,
    items,
    path_part,
)
from fluvial.control_api import ProblemError as ProblemError  # a part of this module's surface
from fluvial.errors import UnavailableError
from fluvial.replay_reports import ReplayReport, RunCheck
from fluvial.run_client import Outcome as Outcome  # likewise
from fluvial.run_client import Started as Started
from fluvial.run_client import moment_text

_BUILD_SECONDS: Final = 960.0  # between two lines of a build's log; the gateway gives up before
_CHECK_SECONDS: Final = 300.0  # between two runs of a replay check: a cold start and a long log
_KEYS_SECONDS: Final = 120.0  # instances may have to end first, and a key service to answer
_LOG_RECORDS: Final = 1000  # of a page
_MEDIA_TYPE: Final = "application/zstd"


@dataclass(frozen=True, slots=True)
class Deployed:
    """The end of a deploy that went well."""

    deployment: dict[str, Any]
    url: str
    created: bool  # False: the app was at this deployment already


class Client(AppClient):
    """Speaks to one control API. Not safe for threads that share it during `close`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """`url` is where the control API listens, such as http://127.0.0.1:8081."""
        super().__init__(ControlApi(url, token))
        self._http, self._talking = self._api.http, self._api.talking
        self._get, self._post = self._api.get, self._api.post

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
        self._api.close()

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
                timeout=httpx.Timeout(_BUILD_SECONDS, connect=CONNECT_SECONDS),
            )
            with request as response:
                check(response)
                yield from _build_lines(response)

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
        path = f"/v1/deployments/{path_part(deployment)}/replay-check"
        for item in self._api.lines(path, body, {}, timeout_seconds=_CHECK_SECONDS):
            if "run" in item:
                yield RunCheck.from_json(item["run"])
            elif "report" in item:
                yield ReplayReport.from_json(item["report"])
                return
        raise UnavailableError("the platform went away before the check had ended: check again")

    # Crons

    def crons(self, app: str | None = None) -> list[dict[str, Any]]:
        """Return the crons of production deployments, by app and name."""
        return items(self._get("/v1/crons", app=app), "crons")

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

    # Environments

    def environment(self, app: str) -> dict[str, Any]:
        """Return the names of an app's variables and secrets (`variables`); never a value."""
        return self._get(_environment(app))

    def set_environment(
        self, app: str, variables: Mapping[str, str], *, secret: bool = False
    ) -> dict[str, Any]:
        """Set variables of an app, or secrets, for deploys from now on; return `environment`.

        Raises:
            ProblemError: it was refused; then none of them was set.
        """
        body = {"variables": dict(variables), "secret": secret}
        return self._post(_environment(app), body)

    def remove_variable(self, app: str, name: str) -> None:
        """Remove a variable or a secret of an app, for deploys from now on."""
        self._api.delete(f"{_environment(app)}/{path_part(name)}")

    def redeploy(self, app: str, *, promote: bool = True) -> Deployed:
        """Deploy what is an app's production again, with the app's environment of now."""
        answer = self._post(f"/v1/apps/{path_part(app)}/redeploy", {"promote": promote})
        return Deployed(answer["deployment"], str(answer["url"]), bool(answer["created"]))

    # Keys

    def keys(self, app: str) -> dict[str, Any]:
        """Return an app's keyring: its `keys`, oldest first, without their secrets."""
        return self._get(f"/v1/apps/{path_part(app)}/keys")

    def rotate_keys(self, app: str) -> dict[str, Any]:
        """Make a new key that seals from now on; return the keyring."""
        return self._change_keys(app, "rotate")

    def rewrap_keys(self, app: str) -> dict[str, Any]:
        """Have the KMS command wrap all keys anew; return the keyring."""
        return self._change_keys(app, "rewrap")

    def freeze_keys(self, app: str) -> dict[str, Any]:
        """Have nothing sealed any more; return the keyring."""
        return self._change_keys(app, "freeze")

    def thaw_keys(self, app: str) -> dict[str, Any]:
        """Undo `freeze_keys`; return the `keyring` and how many runs go on (`resumed_runs`)."""
        return self._change_keys(app, "thaw")

    def destroy_key(
        self, app: str, key_id: str, *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Erase a key for ever: what it sealed is unreadable. Return what was done.

        Raises:
            ProblemError: `key_in_use` while live runs need it, unless `force` is set.
        """
        body = {"force": force, "dry_run": dry_run}
        return self._change_keys(app, f"{path_part(key_id)}/destroy", body)

    def _change_keys(
        self, app: str, how: str, body: Mapping[str, bool] | None = None
    ) -> dict[str, Any]:
        path = f"/v1/apps/{path_part(app)}/keys/{how}"
        return self._post(path, dict(body or {}), timeout_seconds=_KEYS_SECONDS)

    # Logs

    def logs(
        self,
        app: str,
        *,
        tail: int | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        level: str | None = None,
        text: str | None = None,
        deployment: str | None = None,
        instance: str | None = None,
        invocation: str | None = None,
        kind: str | None = None,
        function: str | None = None,
        run: str | None = None,
        follow: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Yield what an app has printed and logged, oldest first: all that has what is given.

        Args:
            app: whose log.
            tail: begin with the last so many records.
            since: written then or later, or so long ago ("10m").
            until: written before, or longer ago.
            level: this one or above: debug, info, warning, error, critical.
            text: stands in the message.
            deployment, instance, invocation, kind, function, run: what wrote it.
            follow: yield what is written from now on too, for ever.

        Raises:
            ProblemError: it was refused.
            UnavailableError: the platform cannot be reached, or stays away.
        """
        given: dict[str, Any] = {
            "app": app,
            "tail": tail,
            "since": moment_text(since),
            "until": moment_text(until),
            "level": level,
            "text": text,
            "deployment": deployment,
            "instance": instance,
            "invocation": invocation,
            "kind": kind,
            "function": function,
            "run": run,
        }
        wanted = {name: value for name, value in given.items() if value is not None}
        if follow:
            for event, record in self._api.follow_events("/v1/logs", wanted):
                if not event:
                    yield record
            return
        done = False
        while not done:
            page = self._get("/v1/logs", limit=_LOG_RECORDS, **wanted)
            yield from items(page, "records")
            # A log that grows has no end: what was there when it was reached is what was asked for.
            done = bool(page["done"])
            wanted = {**wanted, "cursor": page["next"]}
            wanted.pop("tail", None)

    # The platform

    def create_token(self, name: str, scopes: Sequence[str]) -> dict[str, Any]:
        """Return a new token; it is shown this once."""
        return self._post("/v1/tokens", {"name": name, "scopes": list(scopes)})

    def instances(self) -> dict[str, Any]:
        """Return what runs now."""
        return self._get("/v1/instances")

    def usage(
        self,
        app: str | None = None,
        *,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        by: str | None = None,
    ) -> dict[str, Any]:
        """Return what was used and what it costs: `rows`, their `total`, and the `prices`.

        Args:
            app: only this one.
            since: from then on, or from so long ago; without, the last 30 days.
            until: until then, or until so long ago.
            by: a row for each app, function, day or hour.
        """
        return self._get(
            "/v1/usage", app=app, by=by, since=moment_text(since), until=moment_text(until)
        )

    def info(self) -> dict[str, Any]:
        """Return what the platform says about itself."""
        return self._get("/v1/info")


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


def _environment(app: str) -> str:
    return f"/v1/apps/{path_part(app)}/environment"


def _cron(app: str, cron: str) -> str:
    return f"/v1/apps/{path_part(app)}/crons/{path_part(cron)}"
