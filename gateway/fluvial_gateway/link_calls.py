"""Calls of an instance to the platform (start a run, read a run, resume a hook), over its link.

What user code can make the gateway hold is bounded per link: the number of calls, the bytes of
their bodies and the time each may take.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from fluvial import wire
from fluvial.errors import FluvialError, UnavailableError, WireError
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Subject
from fluvial_gateway.owned_tasks import OwnedTasks

logger = logging.getLogger(__name__)

# Most of them only wait, for the end of a run or more of a stream: some 10 kB each.
MAX_CALLS: Final = 1000
MAX_CALL_BODY_BYTES: Final = wire.MAX_BODY_BYTES  # of all calls of a link together
MAX_UNREAD_BYTES: Final = wire.MAX_BODY_BYTES  # of replies that the instance has not read
CALL_SECONDS: Final = 90.0  # above the longest `wait_ms` that the operations accept


class ReplyLink(Protocol):
    """The link that calls came by."""

    @property
    def unread_bytes(self) -> int:
        """How much was sent that the instance has not taken yet."""
        ...

    def send(self, frame: bytes) -> None:
        """Write one frame."""
        ...

    def close(self, reason: str) -> None:
        """Close the connection at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkContext:
    """Who is calling; known from the link, never from the frame."""

    instance: str
    deployment: str
    app: str
    subject: Subject | None = None  # the execution whose invocation, still under way, is calling


CallAnswer = tuple[dict[str, Any], bytes]
CallOperation = Callable[[LinkContext, Mapping[str, Any], bytes], Awaitable[CallAnswer]]


class CallHandler(Protocol):
    """Carries out the operations that instances may ask for."""

    async def handle(
        self, link_context: LinkContext, operation: str, arguments: dict[str, Any], body: bytes
    ) -> tuple[str, dict[str, Any], bytes]:
        """Return ("ok" or an error code, result, body)."""
        ...


@dataclass(frozen=True, slots=True)
class _Call:
    """One CALL frame and who sent it."""

    id: int
    context: LinkContext
    operation: str
    arguments: dict[str, Any]
    body: bytes


class CallDesk:
    """Takes the calls of one link and sends their replies."""

    def __init__(
        self,
        context: LinkContext,
        handler: CallHandler,
        tasks: OwnedTasks,
        *,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._context = context
        self._handler = handler
        self._tasks = tasks
        self._call_seconds = call_seconds
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._body_bytes = 0

    @property
    def under_way(self) -> int:
        """How many calls have not been replied to."""
        return len(self._under_way)

    def on_call(
        self, link: ReplyLink, header: list[Any], body: bytes, subject: Subject | None
    ) -> None:
        """Carry out one CALL frame that came out of the execution `subject`.

        Raises:
            WireError: the frame is malformed or its id is in use.
        """
        call_id, operation, arguments = header[1], header[3], header[4]
        if not isinstance(operation, str) or not isinstance(arguments, dict):
            raise WireError("a call without operation or arguments")
        if call_id in self._under_way:
            raise WireError(f"a second call {call_id}")
        full = self._body_bytes + len(body) > MAX_CALL_BODY_BYTES
        if full or len(self._under_way) >= MAX_CALLS:
            reason = {"message": f"at most {MAX_CALLS} calls and {MAX_CALL_BODY_BYTES} bytes"}
            self._send(link, wire.pack(FrameType.REPLY, call_id, UnavailableError.code, reason))
            return
        self._body_bytes += len(body)
        context = self._context if subject is None else replace(self._context, subject=subject)
        call = _Call(call_id, context, operation, cast("dict[str, Any]", arguments), body)
        work = self._reply(link, call)
        self._under_way[call_id] = self._tasks.start(work, f"call {operation}")

    def close(self) -> None:
        """Cancel the calls under way: nobody can hear their replies."""
        for task in self._under_way.values():
            task.cancel()

    async def _reply(self, link: ReplyLink, call: _Call) -> None:
        try:
            code, result, answer = await self._answer(call)
        finally:
            del self._under_way[call.id]
            self._body_bytes -= len(call.body)
        try:
            frame = wire.pack(FrameType.REPLY, call.id, code, result, body=answer)
        except WireError as error:
            frame = wire.pack(FrameType.REPLY, call.id, error.code, {"message": str(error)})
        self._send(link, frame)

    def _send(self, link: ReplyLink, frame: bytes) -> None:
        if link.unread_bytes > MAX_UNREAD_BYTES:
            # It asks and does not listen: what it is told would pile up here.
            logger.warning("an instance does not read", extra={"instance": self._context.instance})
            link.close("it does not read the replies to its calls")
        else:
            link.send(frame)

    async def _answer(self, call: _Call) -> tuple[str, dict[str, Any], bytes]:
        operation = call.operation
        try:
            async with asyncio.timeout(self._call_seconds):
                return await self._handler.handle(
                    call.context, operation, call.arguments, call.body
                )
        except UnavailableError as error:  # an instance knows no kinds of it
            return UnavailableError.code, {"message": str(error)}, b""
        except FluvialError as error:
            return error.code, {"message": str(error)}, b""
        except TimeoutError:
            message = f"{operation} took longer than {self._call_seconds} s"
            return UnavailableError.code, {"message": message}, b""
        except Exception:
            logger.exception("a call failed", extra={"operation": operation})
            return FluvialError.code, {"message": f"{operation} failed in the gateway"}, b""
