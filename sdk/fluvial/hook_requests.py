"""Requests: payloads of a hook, each of which the workflow can answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Generator
from typing import Any, Generic, TypeVar

from fluvial.codec import encode
from fluvial.errors import HookClosedError
from fluvial.hook_operations import Delivery, HookOperation

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Told:
    """Something that is done already; it can be awaited, and need not be."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


TOLD = Told()


class Request(Generic[T]):
    """One payload. Who sent it by `Run.ask` waits for the answer; who used `send` does not, and
    hears nothing of it."""

    __slots__ = ("_delivery", "value")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.value: T = delivery.value

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for the answer."""
        return self._delivery.asks

    def answer(self, value: Any = None) -> Told:
        """Answer with a value; also once the hook is closed, as long as the run goes on.

        Raises:
            InvalidRequestError: it was answered before.
            SerializationError: the value cannot be stored; the path names what cannot.
        """
        self._delivery.answer(encode(value, "answer"), ok=True)
        return TOLD

    def refuse(self, reason: str) -> Told:
        """Have `AskRefusedError(reason)` raised where it was asked.

        Raises:
            InvalidRequestError: it was answered before.
        """
        self._delivery.answer(encode(str(reason), "reason"), ok=False)
        return TOLD


class Requests(Generic[T]):
    """The requests of an open hook, in the order of the log, until it is closed."""

    def __init__(self, operation: HookOperation) -> None:
        self._operation = operation

    def __aiter__(self) -> AsyncIterator[Request[T]]:
        return self

    async def __anext__(self) -> Request[T]:
        while True:
            try:
                delivery = await self._operation.take()
            except HookClosedError:
                raise StopAsyncIteration from None
            if delivery.error is None:
                return Request(delivery)
            logger.warning("a payload was skipped: %s", delivery.error)
