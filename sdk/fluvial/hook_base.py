"""What all kinds of hooks have in common: a workflow opens one, waits, and closes it."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from fluvial.classes import is_model
from fluvial.codec import decode, encode
from fluvial.durations import Duration, to_seconds
from fluvial.errors import (
    HookClosedError,
    HookConflictError,
    InvalidRequestError,
    NotInWorkflowError,
    SerializationError,
)
from fluvial.hook_operations import HookOperation, HookTerms
from fluvial.json_schemas import payload_schema
from fluvial.loop import WorkflowLoop, current_loop
from fluvial.shapes import shape_of

T = TypeVar("T")


class HookBase(ABC, Generic[T]):
    """A durable wait for payloads, of whatever kind."""

    def __init__(
        self, payload_type: Any, sealed: Mapping[str, Any], timeout: Duration | None
    ) -> None:
        """`sealed`: what only those may read who may read the run's data; nothing: it is empty."""
        seconds = None if timeout is None else to_seconds(timeout, "timeout")
        if seconds == 0:
            raise InvalidRequestError("a hook's timeout is longer than nothing")
        self._payload_type = payload_type
        self._sealed = encode(dict(sealed), "metadata") if sealed else None
        self._timeout_seconds = seconds
        self._operation: HookOperation | None = None

    @property
    def token(self) -> str:
        """The token with which the hook is resumed; a made one is known once the hook is open."""
        if self._operation is None:
            raise InvalidRequestError("the hook has no token before it is open (`async with`)")
        return self._operation.token

    async def open(self) -> Self:
        """Open the hook; whoever does not use `async with` has to close it.

        Raises:
            NotInWorkflowError: no workflow is running here.
            HookConflictError: this run has a hook with the token open.
        """
        loop = current_loop()
        if loop is None:
            raise NotInWorkflowError("a Hook works in workflows only")
        if self._operation is not None:
            raise InvalidRequestError("a Hook opens once; make another one")
        token = self._token_in(loop)
        if token in loop.scope.open_tokens:
            raise HookConflictError(token)
        loop.scope.open_tokens.add(token)
        self._operation = operation = HookOperation(loop, token, self._terms())
        loop.journal.ask(operation)
        try:
            await operation.known
        except BaseException:
            self.close()
            raise
        if self._timeout_seconds is not None:
            operation.timer = loop.call_later(self._timeout_seconds, self._expire)
        return self

    def close(self) -> None:
        """Take nothing more; what has come and was not taken is dropped. Once is enough."""
        operation = self._operation
        if operation is not None:
            self._withdraw(operation)
            operation.end(HookClosedError(operation.token))
            operation.drop()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._once().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._next()
        except HookClosedError:
            raise StopAsyncIteration from None

    async def _once(self) -> T:
        if self._operation is not None:
            return await self._next()
        async with self:
            return await self._next()

    @abstractmethod
    async def _next(self) -> T:
        """Return the next payload."""

    def _opened(self) -> HookOperation:
        if self._operation is None:
            raise InvalidRequestError("the hook is not open (`async with`)")
        return self._operation

    def _token_in(self, loop: WorkflowLoop) -> str:
        """Return the token to open the hook with."""
        return loop.scope.next_token()

    def _terms(self) -> HookTerms:
        """Return what to open the hook with."""
        return HookTerms(
            read=functools.partial(read_payload, self._payload_type),
            schema=functools.partial(payload_schema, self._payload_type),
            timeout_ms=round((self._timeout_seconds or 0) * 1000),
            metadata=self._sealed,
        )

    def _expire(self) -> None:
        operation, seconds = self._opened(), self._timeout_seconds
        self._withdraw(operation)
        operation.end(TimeoutError(f"nothing came to the hook within {seconds:g} seconds"))

    @staticmethod
    def _withdraw(operation: HookOperation) -> None:
        operation.loop.scope.open_tokens.discard(operation.token)
        operation.loop.journal.withdraw(operation)


def read_payload(wanted: Any, plaintext: bytes) -> Any:
    """Return a payload in the type that the hook takes.

    Raises:
        SerializationError: it is something else.
    """
    payload = decode(plaintext, shape_of(wanted), "payload")
    if isinstance(wanted, type) and not isinstance(payload, wanted):
        named = cast("type[Any]", wanted)
        if dataclasses.is_dataclass(named) or is_model(named) or issubclass(named, Enum):
            raise SerializationError("payload", f"must be a {named.__qualname__}")
    return payload
