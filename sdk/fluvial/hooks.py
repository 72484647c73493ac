"""Hooks: durable waits for something outside (an approval, a callback, a message to a live run)."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from fluvial.durations import Duration
from fluvial.errors import InvalidRequestError
from fluvial.hook_base import HookBase
from fluvial.hook_operations import HookTerms
from fluvial.hook_requests import Requests
from fluvial.hook_tokens import check_chosen, named_token
from fluvial.loop import WorkflowLoop

T = TypeVar("T")

_SOON_SECONDS = 0.001  # when a hook that is opened now is known to be open


class Hook(HookBase[T]):
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
        super().__init__(payload_type, {} if metadata is None else {"metadata": metadata}, timeout)
        self._token = token
        self._name = name

    @property
    def token(self) -> str:
        """The token with which the hook is resumed; a made one is known once the hook is open."""
        if self._operation is None and self._token is not None:
            return self._token
        return super().token

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

    async def _next(self) -> T:
        delivery = await self._opened().take()
        if delivery.error is not None:
            raise delivery.error
        delivery.acknowledge()
        payload: T = delivery.value
        return payload

    def _token_in(self, loop: WorkflowLoop) -> str:
        if self._token is not None:
            return self._token
        if self._name is not None:
            return named_token(loop.scope.run_id, self._name)
        return super()._token_in(loop)

    def _terms(self) -> HookTerms:
        return dataclasses.replace(
            super()._terms(), name=self._name or "", is_chosen=self._token is not None
        )
