"""HTTP invocations under way: between a client's connection and an instance's link.

Until the instance shows that the handler has started (a response, or credit for body bytes), the
request's sent bytes are kept, so that a refused request can go elsewhere unchanged; the window of
the flow control bounds them.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from fluvial import wire
from fluvial.ends import describe_end
from fluvial.manifest import DeploymentSpec
from fluvial_gateway.cold_starts import ColdStart
from fluvial_gateway.http_problems import Problem
from fluvial_gateway.instances import Instance
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.link_slots import HttpSlot, RequestFields
from fluvial_gateway.links import LINK_LOST
from fluvial_gateway.pool_contract import HttpObserver
from fluvial_gateway.pooled_invocations import InvocationContext, PooledInvocation
from fluvial_gateway.pools import InstancePool

BACKLOG_BYTES: Final = wire.CHUNK_BYTES  # unsent body above which the client is not read

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OUTCOMES: Final = frozenset({"ok", "error", "cancelled", "timeout"})


def _death(fate: str | None) -> Unavailable:
    how = describe_end(fate) if fate is not None else None
    message = f"the instance that executed the request is gone{f': {how}' if how else ''}"
    return Unavailable("instance_died", f"{message}; the request may have been executed", False)


class HttpClient(Protocol):
    """The client's connection, as its invocation sees it."""

    def invocation_placed(self) -> None:
        """An instance has it: the client may send the body that it holds back."""
        ...

    def response_started(
        self, status: int, framing: int, head: bytes, chunk: bytes, more: bool
    ) -> None:
        """Write the head and the first bytes of the response."""
        ...

    def response_continued(self, chunk: bytes, more: bool) -> None:
        """Write more of the response."""
        ...

    def response_refused(self, problem: Problem) -> None:
        """Nothing has begun, and this is said instead."""
        ...

    def response_failed(self, reason: Unavailable) -> None:
        """There will be no (complete) response."""
        ...

    def request_credited(self) -> None:
        """The backlog of the request's body has shrunk."""
        ...


class HttpInvocation(PooledInvocation):
    """One request until its FINISHED."""

    placed_at = 0.0
    responded_at = 0.0
    was_cold = False
    backlog = 0  # body bytes not sent yet
    _complete = True
    _http: HttpSlot | None = None
    _pending: deque[bytes] | None = None
    _replay: list[bytes] | None = None  # what was sent, until the handler is known to have started
    _handler_started = False

    def __init__(
        self,
        pool: InstancePool,
        context: InvocationContext,
        observer: HttpObserver,
        client: HttpClient,
        app: str,
        fields: RequestFields,
        now: float,
    ) -> None:
        self.deadline = now + context.limits.queue_seconds
        self.submitted_at = now
        self._pool = pool
        self._context = context
        self._app = app
        self._client: HttpClient | None = client
        self._fields = fields
        self._observer = observer

    # For the client's connection

    @property
    def id(self) -> str:
        """The id that the client and the instance know it by."""
        return self._fields[0]

    def timing(self) -> tuple[float, ColdStart | None, float]:
        """Return seconds in the queue, the cold start if there was one, seconds in the handler."""
        instance = self.instance_used
        ready_at = instance.welcomed_at if instance is not None and self.was_cold else None
        if instance is None or ready_at is None:
            return self.placed_at - self.submitted_at, None, self.responded_at - self.placed_at
        began_at = max(self.submitted_at, instance.started_at)
        cold = ColdStart.measured(
            instance.tier, began_at, instance.created_at, ready_at, instance.import_seconds
        )
        return began_at - self.submitted_at, cold, self.responded_at - ready_at

    def open(self, chunk: bytes, *, more: bool) -> None:
        """Look for an instance; `chunk` is the beginning of the request's body."""
        if chunk:
            self._pending = deque((chunk,))
            self.backlog = len(chunk)
        self._complete = not more
        self.start()

    def feed(self, chunk: bytes, *, more: bool) -> None:
        """Take more of the request's body; `more` false ends it."""
        self._complete = not more
        if chunk:
            if self._pending is None:
                self._pending = deque()
            self._pending.append(chunk)
            self.backlog += len(chunk)
        self._pump(ending=not more)

    def consumed(self, size: int) -> None:
        """The client has taken so many bytes of the response."""
        if self._http is not None:
            self._http.consumed(size)

    def detach(self, reason: str | None = None) -> None:
        """The connection hears no more of this; with a reason, the invocation is also cancelled."""
        self._client = None
        if reason is not None:
            self.cancel(reason)

    # For the link

    def response(self, status: int, framing: int, head: bytes, chunk: bytes, more: bool) -> None:
        self._handler_started = True
        self._replay = None
        if self._client is not None:
            self.responded_at = self._context.deadlines.clock()
            self._client.response_started(status, framing, head, chunk, more)

    def response_body(self, chunk: bytes, *, more: bool) -> None:
        if self._client is not None:
            self._client.response_continued(chunk, more)

    def broken(self, code: str) -> None:
        self._fail(Unavailable("response_broken", f"the function's response broke: {code}", False))

    def credited(self) -> None:
        self._handler_started = True
        self._replay = None
        self._pump(ending=False)
        if self._client is not None:
            self._client.request_credited()

    def finished(self, cpu_us: int, outcome: str) -> None:
        self._finish()
        self._http = None  # it refers to this object: without the cycle nobody has to collect it
        if outcome == "timeout":  # the instance keeps the deadline, too
            self._timed_out()
        elif self._client is not None:
            self._fail(Unavailable("no_response", "the function ended without a response", False))
        self._observe(outcome if outcome in _OUTCOMES else "error", cpu_us)

    # For the base

    def _send(self, instance: Instance, spec: DeploymentSpec) -> HttpSlot:
        now = self.placed_at = self._context.deadlines.clock()
        self.was_cold = instance.welcomed_at is None and instance.tier != "warm"
        seconds = spec.instance.max_duration_seconds
        self.deadline = now + seconds
        chunk = self._next_chunk(wire.CHUNK_BYTES) if self._pending else b""
        more = not self._complete or bool(self._pending)
        self._http = instance.link.request(self, self._fields, int(seconds * 1000), chunk, more)
        return self._http

    def _placed(self) -> None:
        if self._pending:
            self._pump(ending=self._complete)
        if self._client is not None:
            self._client.invocation_placed()

    def _sent_back(self) -> None:
        self._http = None
        self.deadline = self.submitted_at + self._context.limits.queue_seconds
        if self._replay:
            self._pending = deque([*self._replay, *(self._pending or ())])
            self.backlog = sum(map(len, self._pending))
            self._replay = None

    def _may_run_twice(self, reason: str) -> bool:
        """Once, for what a proxy may repeat by itself (RFC 9110 §9.2.2), while the client has seen
        nothing of a response: an instance that is killed costs such a request only time."""
        has_body = self._replay is not None or self._pending is not None or not self._complete
        is_safe = self._fields[1] in _SAFE_METHODS and not has_body
        is_dead = reason.startswith(LINK_LOST)  # and not cut off by us for what it sent
        return is_safe and is_dead and not self._handler_started and self.reroutes == 0

    def _refused(self, reason: Unavailable) -> None:
        self._fail(reason)
        self._observe("cancelled" if reason.code == "cancelled" else "refused", 0)

    def _lost(self, instance: Instance, reason: str) -> None:
        self._http = None
        self._observe("lost", 0)
        if self.responded_at or not reason.startswith(LINK_LOST):
            self._fail(_death(None))
        else:
            self._pool.tell_fate(instance, lambda fate: self._fail(_death(fate)))

    def _timed_out(self) -> None:
        self._fail(Unavailable("function_timeout", "the function took too long", False))

    # Body

    def _pump(self, *, ending: bool) -> None:
        """Send what credit allows; `ending`: the end itself is still to be sent."""
        slot = self._http
        if slot is None:
            return
        while self._pending and slot.send_credit > 0:
            chunk = self._next_chunk(min(wire.CHUNK_BYTES, slot.send_credit))
            slot.send_body(chunk, more=not self._complete or bool(self._pending))
            ending = False
        if ending and not self._pending:
            slot.send_body(b"", more=False)

    def _next_chunk(self, limit: int) -> bytes:
        pending = self._pending
        if not pending:
            return b""
        chunk = pending.popleft()
        if len(chunk) > limit:
            pending.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self.backlog -= len(chunk)
        if not self._handler_started:
            if self._replay is None:
                self._replay = []
            self._replay.append(chunk)
        return chunk

    # Ends

    def _fail(self, reason: Unavailable) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.response_failed(reason)

    def _observe(self, outcome: str, cpu_us: int) -> None:
        if self.cancelled == "timeout":
            outcome = "timeout"
        seconds = self._context.deadlines.clock() - self.submitted_at
        self._observer.http_finished(self._app, outcome, seconds, cpu_us)
