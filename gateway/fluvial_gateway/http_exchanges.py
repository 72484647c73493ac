"""What stands behind a client's connection while it has a request: a function, or the gateway."""

from __future__ import annotations

from typing import Protocol

from fluvial_gateway.cold_starts import ColdStart


class HttpExchange(Protocol):
    """One request and its response, as the connection sees them; it tells an `HttpClient`."""

    @property
    def id(self) -> str:
        """The id that the client knows it by."""
        ...

    @property
    def backlog(self) -> int:
        """How many bytes of the body are held here because nobody can take them yet."""
        ...

    def timing(self) -> tuple[float, ColdStart | None, float]:
        """Return seconds in the queue, the cold start if there was one, seconds in the handler."""
        ...

    def open(self, chunk: bytes, *, more: bool) -> None:
        """Begin; `chunk` is the beginning of the request's body."""
        ...

    def feed(self, chunk: bytes, *, more: bool) -> None:
        """Take more of the request's body; `more` false ends it."""
        ...

    def consumed(self, size: int) -> None:
        """The client has taken so many bytes of the response."""
        ...

    def detach(self, reason: str | None = None) -> None:
        """The connection hears no more of this; with a reason, it is also given up."""
        ...
