"""Requests to the control API, synchronous: documents, and streams of events that reconnect."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast
from urllib.parse import quote

import httpx

from fluvial.errors import FluvialError, InvalidRequestError, UnavailableError

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
_FOLLOW_SECONDS: Final = 60.0  # the gateway says that it is still there every 15 seconds
_NO_CONTENT: Final = 204  # to a follower: there is nothing more and there never will be
_RECONNECTS: Final = 5  # in a row, of a follower that hears nothing new
RECONNECT_SECONDS: Final = 1.0


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


class ControlApi:
    """One control API. Not safe for threads that share it during `close`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """`url` is where it listens, such as http://127.0.0.1:8081."""
        headers = {b"authorization": f"Bearer {token}".encode()} if token else {}
        self._url = url
        try:
            self.http = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                trust_env=False,  # the control API is local: no proxy has anything to do with it
                # Loading the certificates takes longer than a whole command does without TLS.
                verify=not url.startswith("http://"),
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidRequestError(f"{url!r} is not a URL: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def get(
        self, path: str, *, timeout_seconds: float = ANSWER_SECONDS, **parameters: Any
    ) -> dict[str, Any]:
        """Return a document; parameters that are None are left out.

        Raises:
            ProblemError: it was refused.
            UnavailableError: the platform cannot be reached, or does not answer with JSON.
        """
        wanted = {name: value for name, value in parameters.items() if value is not None}
        with self.talking():
            response = self.http.get(
                path,
                params=wanted,
                timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            )
            return _document(response)

    def post(
        self,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> dict[str, Any]:
        """Post JSON and return a document; raises as `get` does."""
        with self.talking():
            response = self.http.post(
                path,
                content=json.dumps(body, allow_nan=False),  # the library takes None for no body
                headers={"content-type": "application/json", **(headers or {})},
                timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            )
            return _document(response)

    def lines(
        self, path: str, body: Any, headers: Mapping[str, str], *, timeout_seconds: float
    ) -> Iterator[dict[str, Any]]:
        """Post JSON and yield the objects of an answer that is made while it is read.

        Raises:
            ProblemError: it was refused, or told so in its last line.
            UnavailableError: the platform cannot be reached, or nothing came for `timeout_seconds`.
        """
        with (
            self.talking(),
            self.http.stream(
                "POST",
                path,
                json=body,
                headers=dict(headers),
                timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            ) as response,
        ):
            check(response)
            for line in filter(str.strip, response.iter_lines()):
                item = cast("dict[str, Any]", json.loads(line))
                if "problem" in item:
                    problem = cast("dict[str, Any]", item["problem"])
                    raise ProblemError(int(problem.get("status", 500)), problem)
                yield item

    def delete(
        self, path: str, *, timeout_seconds: float = ANSWER_SECONDS, **parameters: Any
    ) -> dict[str, Any]:
        """Delete something; return the document that tells of it, {} for none. Raises as `get`
        does."""
        with self.talking():
            response = self.http.delete(
                path,
                params=parameters,
                timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            )
            check(response)
            return _document(response) if response.content else {}

    def follow_events(
        self, path: str, parameters: Mapping[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the type ("" where it has none) and the data of each event, for ever; a connection
        that ends is made anew, behind the last event that had an id.

        Raises:
            ProblemError: it was refused.
            UnavailableError: the platform stays away.
        """
        last_id, failures = "", 0
        while True:
            heard = False
            headers = {"last-event-id": last_id} if last_id else {}
            try:
                for kind, event_id, data in self._events_once(path, parameters, headers):
                    heard, last_id = True, event_id or last_id
                    yield kind, data
            except UnavailableError:
                if failures >= _RECONNECTS:
                    raise
            failures = 0 if heard else failures + 1
            if not heard:
                time.sleep(RECONNECT_SECONDS)

    def _events_once(
        self, path: str, parameters: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        with (
            self.talking(),
            self.http.stream(
                "GET",
                path,
                params=dict(parameters),
                headers={"accept": "text/event-stream", **headers},
                timeout=httpx.Timeout(_FOLLOW_SECONDS, connect=CONNECT_SECONDS),
            ) as response,
        ):
            check(response)
            kind = event_id = ""
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    event_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    yield kind, event_id, cast("dict[str, Any]", json.loads(value))
                    kind = event_id = ""

    def follow(
        self, path: str, start: int, parameters: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        """Yield what is sent from position `start` on until its end; reconnects where it must.

        Raises:
            ProblemError: it was refused.
            UnavailableError: the platform stays away.
        """
        position, failures = start, 0
        while True:
            heard = False
            try:
                for item in self._follow_once(path, {**parameters, "start": str(position)}):
                    heard, position = True, int(item["position"]) + 1
                    yield item
            except _EndError:
                return
            except UnavailableError:
                if failures >= _RECONNECTS:
                    raise
            failures = 0 if heard else failures + 1
            if not heard:
                time.sleep(RECONNECT_SECONDS)

    def _follow_once(self, path: str, parameters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        with (
            self.talking(),
            self.http.stream(
                "GET",
                path,
                params=dict(parameters),
                headers={"accept": "text/event-stream"},
                timeout=httpx.Timeout(_FOLLOW_SECONDS, connect=CONNECT_SECONDS),
            ) as response,
        ):
            if response.status_code == _NO_CONTENT:
                raise _EndError
            check(response)
            for line in response.iter_lines():
                if line == "event: end":
                    raise _EndError
                if line.startswith("data:"):
                    yield cast("dict[str, Any]", json.loads(line[len("data:") :]))

    @contextmanager
    def talking(self) -> Generator[None, None, None]:
        """Tell what a connection may meet as `UnavailableError` and `InvalidRequestError`."""
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


class _EndError(Exception):
    """There is nothing more and there never will be."""


def check(response: httpx.Response) -> None:
    """Raises:
    ProblemError: the platform refused the request.
    """
    if response.is_success:
        return
    response.read()
    try:
        problem: Any = response.json()
    except ValueError:
        problem = None
    fields = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}
    raise ProblemError(response.status_code, fields)


def items(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects that a document holds under a key."""
    return cast("list[dict[str, Any]]", document.get(key, []))


def path_part(text: str) -> str:
    """Return one part of a path; what would change the path's meaning is escaped."""
    if text in ("", ".", ".."):
        raise InvalidRequestError(f"{text!r} is not a name")
    return quote(text, safe="")


def _document(response: httpx.Response) -> dict[str, Any]:
    check(response)
    try:
        document: Any = response.json()
    except ValueError as error:
        raise UnavailableError(f"{response.url} did not answer with JSON") from error
    if not isinstance(document, dict):
        raise UnavailableError(f"{response.url} did not answer with a JSON object")
    return cast("dict[str, Any]", document)
