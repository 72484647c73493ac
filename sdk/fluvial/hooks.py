"""Hooks: durable waits for something outside (an approval, a callback, a message to a live run)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Generator
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
from fluvial.hook_requests import Requests
from fluvial.hook_tokens import check_chosen, named_token
from fluvial.json_schemas import payload_schema
from fluvial.loop import WorkflowLoop, current_loop
from fluvial.shapes import shape_of

T = TypeVar("T")

_SOON_SECONDS = 0.001  # when a hook that is opened now is known to be open


class Hook(Generic[T]):
    """A durable wait for payloads from outside. Await it once, or iterate over it.

        async with Hook(Approval, token=f"order:{order_id}", timeout="2 d") as approval:
            answer = await approval

    Args:
        payload_type: what payloads are; None: anything.
        token: by which anybody in the app resumes the hook; it must be free. Without `token` and
            `name` one is made that cannot be guessed: read it from `token` once the hook is open,
            and hand it out in a step.
        name: by which the run's hook is known to `Run.send` and `Run.ask`.
        metadata: a value for people who look at the hook; encrypted.
        timeout: after so long the hook closes, and whoever waits gets a TimeoutError. What came
            before can still be taken.
    """

    def __init__(
        self,
        payload_type: type[T] | None = None,
        *,
        token: str | None = None,
        name: str | None = None,
        metadata: Any = None,
        timeout: Duration | None = None,
    ) -> None:
        if token is not None:
            check_chosen(token)
        if name is not None:
            named_token("", name)
            if token is not None:
                raise InvalidRequestError("a hook has a token or a name, not both")
        seconds = None if timeout is None else to_seconds(timeout, "timeout")
        if seconds == 0:
            raise InvalidRequestError("a hook's timeout is longer than nothing")
        self._payload_type = payload_type
        self._token = token
        self._name = name
        self._metadata = None if metadata is None else encode({"metadata": metadata}, "metadata")
        self._timeout_seconds = seconds
        self._operation: HookOperation | None = None

    @property
    def token(self) -> str:
        """The token with which the hook is resumed; a made one is known once the hook is open."""
        if self._operation is not None:
            return self._operation.token
        if self._token is None:
            raise InvalidRequestError("the hook has no token before it is open (`async with`)")
        return self._token

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

    async def conflict(self) -> str | None:
        """Return the id of the run that holds the token, if another one does; nothing is raised.

        Raises:
            InvalidRequestError: the hook is not open.
        """
        operation = self._opened()
        if not operation.is_ours and operation.ending is None:
            # A conflict stands in the log right behind the opening: before a timer can have fired.
            loop = operation.loop
            passed = loop.create_future()
            timer = loop.call_later(_SOON_SECONDS, passed.set_result, None)
            try:
                await passed
            finally:
                timer.cancel()
            operation.is_ours = operation.holder is None
        return operation.holder

    def requests(self) -> Requests[T]:
        """Return an iterator over the payloads with which each can be answered.

        What does not fit the payload's type never gets here: who asked with it is refused.
        """
        return Requests(self._opened())

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

    async def _next(self) -> T:
        delivery = await self._opened().take()
        if delivery.error is not None:
            raise delivery.error
        delivery.acknowledge()
        payload: T = delivery.value
        return payload

    def _opened(self) -> HookOperation:
        if self._operation is None:
            raise InvalidRequestError("the hook is not open (`async with`)")
        return self._operation

    def _token_in(self, loop: WorkflowLoop) -> str:
        if self._token is not None:
            return self._token
        if self._name is not None:
            return named_token(loop.scope.run_id, self._name)
        return loop.scope.next_token()

    def _terms(self) -> HookTerms:
        return HookTerms(
            read=functools.partial(_read, self._payload_type),
            schema=functools.partial(payload_schema, self._payload_type),
            name=self._name or "",
            is_chosen=self._token is not None,
            timeout_ms=round((self._timeout_seconds or 0) * 1000),
            metadata=self._metadata,
        )

    def _expire(self) -> None:
        operation, seconds = self._opened(), self._timeout_seconds
        self._withdraw(operation)
        operation.end(TimeoutError(f"nothing came to the hook within {seconds:g} seconds"))

    @staticmethod
    def _withdraw(operation: HookOperation) -> None:
        operation.loop.scope.open_tokens.discard(operation.token)
        operation.loop.journal.withdraw(operation)


def _read(wanted: Any, plaintext: bytes) -> Any:
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
