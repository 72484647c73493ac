"""A WebSocket is one invocation: a request whose answer turns the connection into a tunnel."""

from __future__ import annotations

from typing import Final

from fluvial_gateway.http_invocations import HttpClient, HttpInvocation

# Why the instance is asked to end one; it closes the WebSocket with a code that says the same.
DRAINING: Final = "draining"
WEBSOCKET_SCHEMES: Final = frozenset({"ws", "wss"})


class WebSocketInvocation(HttpInvocation):
    """From a client's handshake until the function has ended."""

    def attach(self, client: HttpClient) -> None:
        """Tell this client from now on: the connection is a tunnel."""
        self._client = client

    def _timed_out(self) -> None:
        """The instance, which was told, says good-bye to an open WebSocket with a close code."""
        if not self.responded_at:
            super()._timed_out()
