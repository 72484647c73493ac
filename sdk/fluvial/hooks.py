"""Hooks: durable waits for something outside (an approval, a callback)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Generator
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, cast

from fluvial.classes import is_model
from fluvial.codec import decode
from fluvial.errors import (
    HookConflictError,
    InvalidRequestError,
    NondeterminismError,
    NotInWorkflowError,
    SerializationError,
)
from fluvial.events import EventType
from fluvial.journal import Operation
from fluvial.loop import WorkflowLoop, current_loop
from fluvial.scope import MADE_TOKEN
from fluvial.shapes import Shape, shape_of

T = TypeVar("T")

MAX_TOKEN_BYTES: Final = 256


class HookOperation(Operation):
    """An open hook of a workflow."""

    __slots__ = ("chosen", "conflict", "known", "payloads", "shape", "token", "wanted")
    opens = EventType.HOOK_OPENED
    closes = EventType.HOOK_CLOSED
    announces = True

    def __init__(self, loop: WorkflowLoop, token: str, chosen: bool, wanted: Any) -> None:
        super().__init__()
        self.known: asyncio.Future[None] = asyncio.Future(loop=loop)
        self.token = token
        self.chosen = chosen
        self.wanted = wanted
        self.shape: Shape = shape_of(wanted)
        self.conflict = False
        # asyncio's queue: a payload is never lost when the task that waits for it is cancelled.
        self.payloads: asyncio.Queue[Any] = asyncio.Queue()

    def opening_meta(self) -> dict[str, Any]:
        return {"token": self.token, "chosen": self.chosen}

    def closing_meta(self) -> dict[str, Any]:
        return {"token": self.token}

    def announced(self, meta: dict[str, Any]) -> None:
        """The log's token is the hook's: a forked run goes on with those of its origin."""
        if self.chosen and meta["token"] != self.token:
            raise NondeterminismError(
                f"the log recorded another token for the hook of operation {self.id}: a chosen"
                " token must depend on nothing but the workflow's input and results"
            )
        self.token = str(meta["token"])
        self.known.set_result(None)

    def receive(self, plaintext: bytes) -> None:
        """Hand a payload to whoever waits, in the order of the log."""
        try:
            payload = decode(plaintext, self.shape, "payload")
            self._check(payload)
        except SerializationError as error:
            self.payloads.put_nowait(_Refused(error))
        else:
            self.payloads.put_nowait(payload)

    def refuse(self) -> None:
        """Another run holds the token: every wait fails."""
        self.conflict = True
        self.payloads.put_nowait(_Refused(HookConflictError(self.token)))

    def _check(self, payload: Any) -> None:
        if not isinstance(self.wanted, type) or isinstance(payload, self.wanted):
            return
        wanted = cast("type[Any]", self.wanted)
        if dataclasses.is_dataclass(wanted) or is_model(wanted) or issubclass(wanted, Enum):
            raise SerializationError("payload", f"must be a {wanted.__qualname__}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the queue for an error."""

    error: Exception


class Hook(Generic[T]):
    """A durable wait for payloads from outside. Await it once, or iterate over it.

        async with Hook(Approval, token=f"order:{order_id}") as approval:
            answer = await approval

    With a chosen `token`, whoever knows it can resume the hook by name; it must be free within the
    app. Without one, a token that cannot be guessed is made; read it from `token` once the hook
    is open and hand it out in a step.
    """

    def __init__(self, payload_type: type[T] | None = None, *, token: str | None = None) -> None:
        if token is not None and not 1 <= len(token.encode()) <= MAX_TOKEN_BYTES:
            raise InvalidRequestError(f"a hook token must have 1 to {MAX_TOKEN_BYTES} bytes")
        if token is not None and token.startswith(MADE_TOKEN):
            raise InvalidRequestError(f"a chosen hook token must not begin with {MADE_TOKEN!r}")
        self._payload_type = payload_type
        self._token = token
        self._loop: WorkflowLoop | None = None
        self._operation: HookOperation | None = None

    @property
    def token(self) -> str:
        """The token with which the hook is resumed; a made one is known once the hook is open."""
        if self._operation is not None:
            return self._operation.token
        if self._token is None:
            raise InvalidRequestError("the hook has no token before it is open (`async with`)")
        return self._token

    async def __aenter__(self) -> Hook[T]:
        loop = current_loop()
        if loop is None:
            raise NotInWorkflowError("a Hook works in workflows only")
        if self._operation is not None:
            raise InvalidRequestError("a Hook opens once; make another one")
        chosen = self._token is not None
        token = self._token if self._token is not None else loop.scope.next_token()
        if token in loop.scope.open_tokens:
            raise HookConflictError(token)
        loop.scope.open_tokens.add(token)
        self._loop = loop
        self._operation = operation = HookOperation(loop, token, chosen, self._payload_type)
        loop.journal.ask(operation)
        try:
            await operation.known
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._loop is not None and self._operation is not None:
            self._loop.scope.open_tokens.discard(self._operation.token)
            self._loop.journal.withdraw(self._operation)

    def __await__(self) -> Generator[Any, Any, T]:
        return self._once().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self._next()

    async def _once(self) -> T:
        if self._operation is not None:
            return await self._next()
        async with self:
            return await self._next()

    async def _next(self) -> T:
        operation = self._operation
        if operation is None or not (operation.is_open or operation.conflict):
            raise InvalidRequestError("the hook is not open")
        item = await operation.payloads.get()
        if not isinstance(item, _Refused):
            payload: T = item
            return payload
        if operation.conflict:
            operation.payloads.put_nowait(item)  # for whoever waits next
        raise item.error
