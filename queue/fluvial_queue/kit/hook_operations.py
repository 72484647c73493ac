"""Hooks in the kit: what `resume_hook`, `Run.send` and `Run.ask` ask the platform for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluvial.errors import HookNotFoundError, RunClosedError, RunNotFoundError
from fluvial.events import EventType, decode_event
from fluvial.hook_tokens import named_token, run_of_token
from fluvial_queue.contract import RunStatus, SendOutcome, Store
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.kit.operations import Drive, Operation, OperationAnswer

_NOT_OPEN = frozenset({SendOutcome.UNKNOWN, SendOutcome.CLOSED})
_NO_LIMIT = 100_000  # events of a test's run


class HookOperations:
    """Delivers payloads to hooks, and finds what is answered."""

    def __init__(self, app: str, store: Store, drive: Drive) -> None:
        self._app = app
        self._store = store
        self._drive = drive

    def operations(self) -> Mapping[str, Operation]:
        """Return the operations by name."""
        return {
            "token": self._token,
            "resume": self._resume,
            "hook_send": self._send,
            "hook_answer": self._answer,
        }

    async def _token(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        token = str(arguments["token"])
        run_id = run_of_token(token) or await self._store.token_holder(self._app, token)
        if run_id is None:
            raise HookNotFoundError(token)
        return {"run_id": run_id}, b""

    async def _resume(self, arguments: dict[str, Any], body: bytes) -> OperationAnswer:
        run_id, token = str(arguments["run_id"]), str(arguments["token"])
        outcome = await self._deliver(run_id, token, arguments, body)
        if outcome in _NOT_OPEN:
            raise HookNotFoundError(token)
        return {"outcome": outcome.value}, b""

    async def _send(self, arguments: dict[str, Any], body: bytes) -> OperationAnswer:
        run_id = await self._known(arguments)
        token = named_token(run_id, str(arguments["name"]))
        position = self._drive.log_length(run_id)
        outcome = await self._deliver(run_id, token, arguments, body)
        if outcome in _NOT_OPEN and arguments["wait_ms"]:
            await self._drive.reach(
                lambda: token in self._drive.open_hooks(run_id) or self._is_over(run_id),
                f"a hook {arguments['name']!r} of {run_id}",
            )
            outcome = await self._deliver(run_id, token, arguments, body)
        if outcome in _NOT_OPEN:
            if self._drive.status(run_id) == RunStatus.CONTINUED:
                return {"outcome": "continued"}, b""
            if self._is_over(run_id):
                raise RunClosedError(run_id)
            return {"outcome": "not_open"}, b""
        start = 0 if outcome is SendOutcome.DUPLICATE else position
        return {"outcome": outcome.value, "position": start}, b""

    async def _answer(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        run_id = await self._known(arguments)
        token = str(arguments.get("token") or named_token(run_id, str(arguments["name"])))
        position = int(arguments["start"])
        while True:
            events = await self._store.read_events(run_id, start=position, limit=_NO_LIMIT)
            for encoded in events:
                event = decode_event(encoded)
                about = (event.meta.get("token"), event.meta.get("resume"))
                if event.type is EventType.HOOK_ANSWERED and about == (
                    token,
                    arguments["resume_id"],
                ):
                    return {"outcome": "answered"}, encoded
            position += len(events)
            is_over = self._is_over(run_id)
            if is_over or not arguments["wait_ms"]:
                outcome = "ended" if is_over else "waiting"
                status = self._drive.status(run_id)
                return {"outcome": outcome, "status": status, "position": position}, b""
            await self._reach_more(run_id, position)

    async def _reach_more(self, run_id: str, position: int) -> None:
        await self._drive.reach(
            lambda: self._drive.log_length(run_id) > position or self._is_over(run_id),
            f"an answer of {run_id}",
        )

    async def _deliver(
        self, run_id: str, token: str, arguments: dict[str, Any], body: bytes
    ) -> SendOutcome:
        payload = Payload(
            run_id=run_id,
            token=token,
            resume_id=str(arguments["resume_id"]),
            sealed=body,
            asks=bool(arguments.get("ask")),
        )
        return await send_payload(self._store, payload)

    async def _known(self, arguments: dict[str, Any]) -> str:
        run_id = str(arguments["run_id"])
        if await self._store.read_run(run_id) is None:
            raise RunNotFoundError(run_id)
        return run_id

    def _is_over(self, run_id: str) -> bool:
        return RunStatus(self._drive.status(run_id)).is_terminal
