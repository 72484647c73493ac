"""Executes a failing program in a real instance, and looks at it from all sides."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

from fluvial.log_files import apps_folder, segments
from tests.e2e.installation import App, Platform, wait_until
from tests.failures.case import Case, Seen

SECONDS: Final = 60.0
GOES_ON: Final = "goes on"
FINE: Final = "200"
_END: Final = r"instance ended instance='{}' reason='([^']*)'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response, as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    @property
    def text(self) -> str:
        """Return the answer in a few words."""
        if not self.is_whole:
            return "broken off"
        if self.status == HTTPStatus.OK:
            return f"{FINE}, made again" if self.body == b"made again" else FINE
        if "json" in self.headers.get("content-type", ""):
            return f"{self.status} {self.problem['code']}"
        return str(self.status)

    @property
    def problem(self) -> dict[str, Any]:
        """Return the problem document."""
        return cast("dict[str, Any]", json.loads(self.body))


class Observer:
    """One deployed app; cases are observed one after the other."""

    def __init__(self, platform: Platform, app: App) -> None:
        self._platform = platform
        self._app = app
        address = urlsplit(app.url)
        self._port = address.port or 80
        self._seen_lines = 0  # of the app's log, before the case

    def observe(self, case: Case) -> Seen:
        """Return what was seen of a case."""
        self._seen_lines = len(self._app_log().splitlines())
        pid = int(self._ask("GET", "/").body)
        instance = self._instance(pid)
        with ThreadPoolExecutor() as threads, self._unsafe_neighbour() as unsafe:
            safe = threads.submit(self._ask, "GET", f"/wait/{pid}")
            self._ask("GET", "/arrived")
            failure = threads.submit(self._ask, "POST", f"/run/{pid}", case.program)
            if case.is_slow:  # else the neighbours would have to wait beyond their own deadline
                self._find_in_log(f"{pid} begins")
            else:
                failure.result(SECONDS)
            unsafe_answer = unsafe.finish()
            safe_answer = safe.result(SECONDS)
            failed = failure.result(SECONDS)
        after = self._ask("GET", "/")
        lives = after.body == str(pid).encode() and not case.ends_later
        end = GOES_ON if lives else self._end(instance)
        if lives and case.leaves_traces:
            os.kill(pid, signal.SIGKILL)
            self._end(instance)
        return Seen(
            caller=failed.text,
            safe_neighbour=safe_answer.text,
            unsafe_neighbour=unsafe_answer.text,
            instance=end,
            log=self._logged(case),
            afterwards=after.text,
        )

    def _ask(self, method: str, path: str, body: str | None = None) -> Answer:
        connection = self._connect()
        try:
            connection.request(method, path, body, {"host": self._app.host})
            return _read(connection)
        finally:
            connection.close()

    @contextmanager
    def _unsafe_neighbour(self) -> Generator[_Upload]:
        connection = self._connect()
        try:
            yield _Upload(connection, self._app.host)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)

    def _instance(self, pid: int) -> str:
        found = [each for each in self._platform.instances(self._app) if each["pid"] == pid]
        return str(found[0]["instance"])

    def _end(self, instance: str) -> str:
        """Return why an instance ended, once the invoker says so."""
        ends: list[str] = []

        def has_ended() -> bool:
            ends.extend(re.findall(_END.format(instance), self._log("invoker")))
            return bool(ends)

        wait_until(has_ended, SECONDS, f"{instance} has ended")
        return ends[0]

    def _logged(self, case: Case) -> str:
        if not case.logged:
            return "nothing"
        lines = self._find_in_log(case.logged)
        return "by invocation" if any("invocation" in line for line in lines) else "by instance"

    def _find_in_log(self, text: str) -> list[dict[str, Any]]:
        """Return the lines of the app's log that have the text, once there are any."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            lines = map(json.loads, self._app_log().splitlines()[self._seen_lines :])
            found.extend(line for line in lines if text in line["message"])
            return bool(found)

        wait_until(is_there, SECONDS, f"the log says {text!r}")
        return found

    def _app_log(self) -> str:
        found = segments(apps_folder(self._platform.home) / self._app.name)
        text = "".join(segment.path.read_text() for segment in found)
        return text.rpartition("\n")[0]  # whole lines

    def _log(self, name: str) -> str:
        path = self._platform.home / "logs" / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return text.rpartition("\n")[0]  # whole lines


class _Upload:
    """A POST whose body ends when it is told to."""

    def __init__(self, connection: http.client.HTTPConnection, host: str) -> None:
        self._connection = connection
        connection.putrequest("POST", "/wait", skip_host=True)
        connection.putheader("host", host)
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders(b"1\r\nx\r\n")

    def finish(self) -> Answer:
        """Send the end, and return the answer."""
        with suppress(ConnectionError):  # it was answered before
            self._connection.send(b"0\r\n\r\n")
        return _read(self._connection)


def _read(connection: http.client.HTTPConnection) -> Answer:
    try:
        response = connection.getresponse()
        body = response.read()
    except (http.client.IncompleteRead, ConnectionResetError):  # the one or the other, by chance
        return Answer(status=0, headers={}, body=b"", is_whole=False)
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(status=response.status, headers=headers, body=body, is_whole=True)
