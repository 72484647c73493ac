"""How user code reaches the platform: CALL frames over the link that its invocation came by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from fluvial.context import Invocation, InvocationKind
from fluvial.encryption import AppKeys
from fluvial.errors import (
    FluvialError,
    HookNotFoundError,
    InvalidRequestError,
    RunClosedError,
    RunNotFoundError,
    SingletonError,
    StartConflictError,
    StreamClosedError,
    StreamFullError,
    UnavailableError,
)
from fluvial.ids import new_run_id
from fluvial.wire import FrameType, pack
from fluvial_invoker.instance.metering import current

MAX_CALLS: Final = 1000  # under way on one link
CALL_SECONDS: Final = 90.0  # above the longest `wait_ms` that an operation takes


class FrameWriter(Protocol):
    """The part of a link that calls need."""

    def write(self, frame: bytes, /) -> None: ...


class LinkPlatform:
    """`fluvial.ports.Platform` over one link."""

    def __init__(
        self,
        link: FrameWriter,
        *,
        keys: AppKeys,
        deployment: str,
        instance: str,
        partitions: int,
        app_url: str,
    ) -> None:
        self.app = keys.app
        self.keys = keys
        self.partitions = partitions
        self._app_url = app_url
        self._deployment = deployment
        self._instance = instance
        self._link = link
        self._calls: dict[int, asyncio.Future[tuple[str, dict[str, Any], bytes]]] = {}
        self._last_call = 0
        self._is_closed = False

    def describe(
        self,
        invocation: str,
        kind: InvocationKind,
        attempt: int,
        deadline: float,
        *,
        stop_asked: Callable[[], bool] = bool,
    ) -> Invocation:
        """Return what `fluvial.context()` says in an invocation of this link."""
        return Invocation(
            id=invocation,
            kind=kind,
            app=self.app,
            deployment=self._deployment,
            instance=self._instance,
            attempt=attempt,
            deadline_seconds=deadline or None,
            app_url=self._app_url,
            stop_asked=stop_asked,
        )

    def new_run_id(self) -> str:
        """Return the id of a run that is about to be started without a key."""
        return new_run_id(self.partitions)

    def open_pulse(self) -> Callable[[bytes], None]:
        """Return what reports that the invocation running here is alive, and its progress."""
        conversation: int = getattr(current.get(), "conversation", 0)

        def report(progress: bytes) -> None:
            self._link.write(pack(FrameType.HEARTBEAT, conversation, body=progress))

        return report

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Ask the gateway for something.

        Raises:
            FluvialError: the one that the gateway's answer names.
            UnavailableError: the link is lost, or no answer came in time.
        """
        if self._is_closed:
            raise UnavailableError("the connection to the platform is gone")
        if len(self._calls) >= MAX_CALLS:
            raise UnavailableError(f"{MAX_CALLS} calls to the platform are under way already")
        self._last_call += 1
        number = self._last_call
        answer = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        invocation: int = getattr(current.get(), "conversation", 0)
        self._link.write(pack(FrameType.CALL, number, invocation, operation, arguments, body=body))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                code, result, payload = await answer
        except TimeoutError:
            raise UnavailableError(f"{operation}: no answer in {CALL_SECONDS:g} s") from None
        finally:
            del self._calls[number]
        if code != "ok":
            raise error_for(code, result, arguments)
        return result, payload

    def reply_arrived(self, number: int, code: str, result: dict[str, Any], body: bytes) -> None:
        """Take a REPLY frame; a late one is dropped."""
        answer = self._calls.get(number)
        if answer is not None and not answer.done():
            answer.set_result((code, result, body))

    def close(self) -> None:
        """The link is gone: nothing that is asked will be answered."""
        self._is_closed = True
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(UnavailableError("the connection to the platform is gone"))


def error_for(code: str, result: dict[str, Any], arguments: dict[str, Any]) -> FluvialError:
    """Return the exception that stands for an answer's code."""
    message = str(result.get("message", code))
    run_id = str(result.get("run_id", arguments.get("run_id", "")))
    match code:
        case "run_not_found":
            return RunNotFoundError(run_id)
        case "run_closed" if "token" not in arguments:
            return RunClosedError(run_id)
        case "hook_not_found" | "run_closed":  # whoever has a token knows no run
            return HookNotFoundError(str(arguments.get("token", result.get("token", ""))))
        case "singleton_alive":
            return SingletonError(str(arguments.get("singleton", "")), run_id)
        case "start_conflict":
            return StartConflictError(str(arguments.get("key", "")), run_id)
        case "workflow_not_found":
            return InvalidRequestError(f"no workflow {arguments.get('workflow')!r} in this app")
        case "unavailable":
            return UnavailableError(message)
        case _:
            return _simple_errors().get(code, FluvialError)(message)


def _simple_errors() -> dict[str, Callable[[str], FluvialError]]:
    """The errors that are made from a message alone, by their codes."""
    known = (InvalidRequestError, StreamClosedError, StreamFullError, UnavailableError)
    return {cls.code: cls for cls in known}
