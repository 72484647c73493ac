"""A small server of the protocol of OpenAI's chat completions, which answers as a test has it.

What is sent, and how it is cut into pieces, follows OpenAI's public API reference (chat
completions, streaming).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, cast

HOLD_SECONDS: Final = 60.0  # how long an answer waits at most; a test ends it before


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of the server."""

    words: Sequence[str] = ()
    calls: Sequence[tuple[str, str, str]] = ()  # (id, tool, arguments as JSON)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hold: threading.Event | None = None  # awaited behind the words, before the end
    end: Literal["done", "missing", "cut"] = "done"


class ChatServer(ThreadingHTTPServer):
    """Gives `answers` one after the other, and the last one again and again."""

    daemon_threads = True

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._answers: list[Answer] = []
        self._lock = threading.Lock()
        self.play(*answers)

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def play(self, *answers: Answer) -> None:
        """Begin anew, with other answers."""
        with self._lock:
            self.requests, self.keys, self._answers = [], [], list(answers)

    def next_answer(self, request: dict[str, Any], key: str) -> Answer:
        """Note a request, and return what it is answered with."""
        with self._lock:
            self.requests.append(request)
            self.keys.append(key)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@contextmanager
def chat_server(*answers: Answer) -> Generator[ChatServer]:
    """Run a server while the context is open."""
    with ChatServer(answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        server = cast("ChatServer", self.server)
        answer = server.next_answer(json.loads(body), self.headers.get("authorization", ""))
        self.close_connection = True
        with suppress(ConnectionError):  # whoever asked may have been killed
            if self.path == "/v1/chat/completions" and answer.status == 200:
                self._stream(answer)
            else:
                self._refuse(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - of the base
        """Say nothing."""

    def _refuse(self, answer: Answer) -> None:
        body = json.dumps({"error": {"message": "not now"}}).encode()
        self.send_response(404 if answer.status == 200 else answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Answer) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._send({"role": "assistant", "content": ""})
        for word in answer.words:
            self._send({"content": word})
        for index, (call_id, tool, arguments) in enumerate(answer.calls):
            function = {"name": tool, "arguments": ""}
            call = {"index": index, "id": call_id, "type": "function", "function": function}
            self._send({"tool_calls": [call]})
            for piece in (arguments[:5], arguments[5:]):
                self._send({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        if answer.hold is not None:
            answer.hold.wait(HOLD_SECONDS)
        if answer.end == "done":
            self._send({}, "tool_calls" if answer.calls else "stop")
            self._write("[DONE]")
        if answer.end != "cut":
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._write(json.dumps({"object": "chat.completion.chunk", "choices": [choice]}))

    def _write(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()
