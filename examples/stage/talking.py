"""HTTP by the standard library alone: requests, and Server-Sent Events that survive a cut."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from stage.installation import TourError

TIMEOUT_SECONDS: Final = 30.0
RECONNECT_SECONDS: Final = 0.1
GIVE_UP_SECONDS: Final = 30.0  # without any event


@dataclass(frozen=True, slots=True)
class Site:
    """Something that answers HTTP at `url`; names below localhost are reached on loopback."""

    url: str
    token: str = ""

    def get(self, path: str) -> Any:
        """Return the JSON (or else the text) at `path`."""
        return self._exchange("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer to `body` at `path`."""
        return self._exchange("POST", path, json.dumps(body).encode())

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Yield (kind, data) of each Server-Sent Event until one of the kind `end`.

        When the connection breaks, it connects again and goes on behind the last event seen.

        Raises:
            TourError: there was no event for too long.
        """
        seen, last = "", time.monotonic()
        while time.monotonic() - last < GIVE_UP_SECONDS:
            try:
                for kind, number, data in self._stream(path, seen):
                    seen, last = number, time.monotonic()
                    yield kind, data
                    if kind == "end":
                        return
            except (http.client.HTTPException, OSError):
                time.sleep(RECONNECT_SECONDS)  # whoever served it is gone: somebody else will
        raise TourError(f"{self.url}{path}: no event for {GIVE_UP_SECONDS:.0f} seconds")

    def _stream(self, path: str, seen: str) -> Iterator[tuple[str, str, Any]]:
        connection = self._connect()
        try:
            connection.request("GET", path, headers=self._headers() | {"last-event-id": seen})
            response = connection.getresponse()
            if response.status != 200:
                raise http.client.HTTPException(f"status {response.status}")
            fields: dict[str, str] = {}
            for line in response:
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    yield fields["event"], fields["id"], json.loads(fields["data"])
                    fields = {}
        finally:
            connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None) -> Any:
        connection = self._connect()
        try:
            connection.request(method, path, body, self._headers())
            response = connection.getresponse()
            text = response.read().decode()
        except (http.client.HTTPException, OSError) as error:
            raise TourError(f"{method} {self.url}{path}: {error}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise TourError(f"{method} {self.url}{path}: {response.status} {text}")
        is_json = "json" in response.headers.get("content-type", "")
        return json.loads(text) if is_json else text

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        address = "127.0.0.1" if host.endswith("localhost") else host
        return http.client.HTTPConnection(address, parts.port, timeout=TIMEOUT_SECONDS)

    def _headers(self) -> dict[str, str]:
        headers = {"host": urlsplit(self.url).netloc, "content-type": "application/json"}
        return headers | ({"authorization": f"Bearer {self.token}"} if self.token else {})
