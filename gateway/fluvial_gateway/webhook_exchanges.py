"""Requests to webhooks, between a client's connection and what answers them.

The hook is looked up before the body is waited for: who knows no webhook holds nothing here but
for a moment. What the others hold is bounded, together.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

from fluvial.webhook_answers import WebhookAnswer
from fluvial.webhook_requests import HOOKS_PATH, MAX_BODY_BYTES
from fluvial.wire import Framing
from fluvial_gateway.http_invocations import HttpClient
from fluvial_gateway.http_problems import Problem
from fluvial_gateway.link_slots import RequestFields
from fluvial_gateway.owned_tasks import OwnedTasks
from fluvial_gateway.pool_contract import HttpObserver

logger = logging.getLogger(__name__)

RESERVED_PATH: Final = b"/.well-known/fluvial/"
MAX_EXCHANGES: Final = 1000
MAX_HELD_BYTES: Final = 64 * 1024 * 1024  # of bodies, by all of them together
_PATH: Final = re.compile(HOOKS_PATH.encode() + rb"([A-Za-z0-9_.-]{1,256})(/[^?]*)?(?:\?(.*))?")

NOT_FOUND: Final = Problem(
    status=404, code="webhook_not_found", detail="there is no such webhook, or its run has ended"
)
_TOO_LARGE: Final = Problem(
    status=413, code="body_too_large", detail=f"a webhook takes at most {MAX_BODY_BYTES} bytes"
)
_TOO_MANY: Final = Problem(
    status=503,
    code="overloaded",
    detail="too many requests to webhooks are under way: try again",
    headers=(("retry-after", "1"),),
)
_INTERNAL: Final = Problem(
    status=500, code="internal", detail="the gateway's log has the traceback"
)


class WebhookProblemError(Exception):
    """A request to a webhook is refused."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookCall:
    """A request to what may be a webhook."""

    app: str
    token: str
    method: str
    path: str  # percent-decoded; what follows the token
    query: str
    headers: list[tuple[bytes, bytes]]
    received_ms: int
    body: Callable[[], Awaitable[bytes]]  # waits for the whole of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A request that its run has, or will have."""

    run_id: str
    token: str
    resume_id: str
    position: int  # in the run's log, behind which an answer would stand
    is_answered: bool  # by the workflow


class WebhookReceiver(Protocol):
    """Whoever finds the hook, and hands the request to its run."""

    async def accept(self, call: WebhookCall) -> Accepted:
        """Take a request.

        Raises:
            WebhookProblemError: it is refused.
        """
        ...

    async def answer(self, accepted: Accepted) -> WebhookAnswer:
        """Return what the sender is told.

        Raises:
            WebhookProblemError: there is no answer.
        """
        ...


class WebhookDesk:
    """All exchanges of a gateway."""

    def __init__(
        self,
        receiver: WebhookReceiver,
        observer: HttpObserver,
        *,
        max_exchanges: int = MAX_EXCHANGES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_exchanges = max_exchanges
        self.receiver = receiver
        self.observer = observer
        self.clock = clock
        self.tasks = OwnedTasks()
        self.held_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.tasks) >= self._max_exchanges or self.held_bytes > MAX_HELD_BYTES

    def exchange(self, app: str, client: HttpClient, fields: RequestFields) -> WebhookExchange:
        """Prepare a request; the caller opens it."""
        return WebhookExchange(self, app, client, fields)

    async def close(self) -> None:
        """Give up what is under way."""
        await self.tasks.close()


class WebhookExchange:
    """One request to a path that is the gateway's; an `HttpExchange`."""

    backlog = 0

    def __init__(
        self, desk: WebhookDesk, app: str, client: HttpClient, fields: RequestFields
    ) -> None:
        self._desk = desk
        self._app = app
        self._client: HttpClient | None = client
        self._fields = fields
        self._began_at = desk.clock()
        self._chunks: list[bytes] = []
        self._size = 0
        self._complete = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The id that the client knows it by."""
        return self._fields[0]

    def timing(self) -> tuple[float, None, float]:
        """Return seconds in the queue, that there was no cold start, seconds in the handler."""
        return 0.0, None, self._desk.clock() - self._began_at

    def open(self, chunk: bytes, *, more: bool) -> None:
        """Look for the hook; `chunk` is the beginning of the request's body."""
        call = self._call()
        if call is None or self._desk.is_full:
            self._refuse(NOT_FOUND if call is None else _TOO_MANY)
            return
        self._task = self._desk.tasks.start(self._serve(call), "webhook")
        self.feed(chunk, more=more)

    def feed(self, chunk: bytes, *, more: bool) -> None:
        """Take more of the request's body; `more` false ends it."""
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES or self._desk.held_bytes > MAX_HELD_BYTES:
            self._give_up()
            self._refuse(_TOO_LARGE if self._size > MAX_BODY_BYTES else _TOO_MANY)
            return
        self._chunks.append(chunk)
        self._desk.held_bytes += len(chunk)
        if not more:
            self._complete.set()

    def consumed(self, size: int) -> None:
        """The response is written at once."""

    def detach(self, reason: str | None = None) -> None:
        """The connection hears no more of this; with a reason, it is also given up."""
        self._client = None
        if reason is not None:
            self._give_up()
            self._observe("cancelled")

    def _give_up(self) -> None:
        self._release()  # a task that has not begun yet will not
        if self._task is not None:
            self._task.cancel()

    def _call(self) -> WebhookCall | None:
        _, method, target, headers, *_ = self._fields
        match = _PATH.fullmatch(target)
        if match is None:
            return None
        token, path, query = match.groups(b"")
        return WebhookCall(
            app=self._app,
            token=token.decode(),
            method=method,
            path=unquote(path, errors="replace"),
            query=query.decode("latin-1"),
            headers=headers,
            received_ms=int(time.time() * 1000),
            body=self._body,
        )

    async def _body(self) -> bytes:
        if not self._complete.is_set() and self._client is not None:
            self._client.invocation_placed()  # whoever holds the body back may send it
        await self._complete.wait()
        return b"".join(self._chunks)

    async def _serve(self, call: WebhookCall) -> None:
        receiver = self._desk.receiver
        try:
            accepted = await receiver.accept(call)
            self._release()
            answer = await receiver.answer(accepted)
        except WebhookProblemError as error:
            self._refuse(error.problem)
        except Exception:  # the boundary of the task: the client must hear of it
            logger.exception("a request to a webhook failed", extra={"app": self._app})
            self._refuse(_INTERNAL)
        else:
            self._answer(answer)
        finally:
            self._release()

    def _release(self) -> None:
        """Forget the body, which the run has, or nobody needs."""
        self._desk.held_bytes -= sum(map(len, self._chunks))
        self._chunks.clear()

    def _answer(self, answer: WebhookAnswer) -> None:
        client = self._client
        self._observe("ok")
        if client is not None:
            head, framing = answer.head(), int(Framing.LENGTH)
            client.response_started(answer.status, framing, head, answer.body, False)

    def _refuse(self, problem: Problem) -> None:
        client, self._client = self._client, None
        self._observe("refused" if problem.status < 500 else "error")
        if client is not None:
            client.response_refused(problem)

    def _observe(self, outcome: str) -> None:
        seconds = self._desk.clock() - self._began_at
        self._desk.observer.http_finished(self._app, outcome, seconds, 0)
