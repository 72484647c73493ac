"""The platform in the kit: what `fluvial.start` and the like ask for, from tests and from steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fluvial.errors import (
    HookNotFoundError,
    InvalidRequestError,
    RunNotFoundError,
    StartConflictError,
)
from fluvial.events import TERMINAL, decode_event
from fluvial.ids import continued_run_id
from fluvial.invocations import pack_events
from fluvial.scope import run_of_token
from fluvial_queue.contract import RunRecord, RunStatus, SendOutcome, StartOutcome, StartRun, Store
from fluvial_queue.kit.flights import current_flight
from fluvial_queue.kit.instances import DEPLOYMENT
from fluvial_queue.messages import Message, MessageKind

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys

Answer = tuple[dict[str, Any], bytes]
_OPTIONS: Final = ("tags", "delay_ms", "deadline_ms", "retention_ms")  # of a start
_MAX_EVENTS: Final = 100_000  # in one answer


class Drive(Protocol):
    """Lets things happen."""

    async def reach(self, condition: Callable[[], bool], what: str) -> None:
        """Let things happen until `condition` holds."""
        ...

    def status(self, run_id: str) -> str: ...

    def log_length(self, run_id: str) -> int: ...

    def has_run(self, run_id: str) -> bool: ...


class KitPlatform:
    """`fluvial.ports.Platform` over a store, for the one app of a test."""

    def __init__(self, keys: AppKeys, store: Store, drive: Drive) -> None:
        self.keys = keys
        self.app = keys.app
        self.partitions = store.partitions
        self._store = store
        self._drive = drive
        self._started = 0
        self._operations: dict[str, Callable[[dict[str, Any], bytes], Awaitable[Answer]]] = {
            "start": self._start,
            "run": self._run,
            "result": self._result,
            "events": self._events,
            "token": self._token,
            "resume": self._resume,
            "cancel": self._steer(MessageKind.CANCEL),
            "terminate": self._steer(MessageKind.TERMINATE),
        }

    def new_run_id(self) -> str:
        """Return the id of the next run: the same in every playing of a test."""
        self._started += 1
        partition = self._started % self.partitions
        return f"run_{partition:02}{self._started:024}"

    def open_pulse(self) -> Callable[[bytes], None]:
        """Return what keeps the progress of the step that asks for it."""
        flight = current_flight()

        def report(progress: bytes) -> None:
            if flight is not None and progress:
                flight.progress = progress

        return report

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Carry out an operation.

        Raises:
            FluvialError: it is refused.
        """
        handler = self._operations.get(operation)
        if handler is None:
            raise InvalidRequestError(f"the test kit knows no operation {operation!r}")
        return await handler(arguments, body)

    async def _start(self, arguments: dict[str, Any], body: bytes) -> Answer:
        run = StartRun(
            run_id=arguments["run_id"],
            app=self.app,
            workflow=arguments["workflow"],
            deployment=DEPLOYMENT,
            input=body,
            key=arguments.get("key") or "",
            fingerprint=arguments.get("fingerprint") or b"",
            meta=await self._meta(arguments),
            **{name: arguments[name] for name in _OPTIONS if name in arguments},
        )
        outcome = await self._store.start(run)
        if outcome is StartOutcome.CONFLICT:
            raise StartConflictError(run.key, run.run_id)
        return {"run_id": run.run_id, "outcome": outcome.value}, b""

    async def _meta(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what stands in a run's meta data beside its fields."""
        meta = {name: arguments[name] for name in ("priority",) if name in arguments}
        if "deadline_ms" in arguments:
            meta["deadline_at"] = await self._store.now_ms() + arguments["deadline_ms"]
        return meta

    async def _run(self, arguments: dict[str, Any], _: bytes) -> Answer:
        record = await self._record(arguments)
        return {
            "status": self._status(record.run_id),
            "workflow": record.workflow,
            "deployment": record.deployment,
            "created_ms": record.created_ms,
            "finished_ms": record.finished_ms,
            "events": record.events,
            "tags": dict(record.tags),
        }, b""

    async def _result(self, arguments: dict[str, Any], _: bytes) -> Answer:
        record = await self._record(arguments)
        run_id = record.run_id
        if not self._is_over(run_id) and arguments.get("wait_ms", 0):
            await self._drive.reach(lambda: self._is_over(run_id), f"the end of {run_id}")
            record = await self._record(arguments)
        if not self._is_over(run_id):
            return {"status": self._status(run_id)}, b""
        (last,) = await self._store.read_events(run_id, start=record.events - 1, limit=1)
        return {"status": record.status.value}, last if decode_event(last).type in TERMINAL else b""

    async def _events(self, arguments: dict[str, Any], _: bytes) -> Answer:
        record, start = await self._record(arguments), int(arguments.get("start", 0))
        if record.events <= start and arguments.get("wait_ms", 0):
            run_id = record.run_id
            await self._drive.reach(
                lambda: self._drive.log_length(run_id) > start or self._is_over(run_id),
                f"an event {start} of {run_id}",
            )
            record = await self._record(arguments)
        events = await self._store.read_events(record.run_id, start=start, limit=_MAX_EVENTS)
        return {"status": record.status.value, "next": start + len(events)}, pack_events(events)

    async def _token(self, arguments: dict[str, Any], _: bytes) -> Answer:
        token = str(arguments["token"])
        run_id = run_of_token(token) or await self._store.token_holder(self.app, token)
        if run_id is None:
            raise HookNotFoundError(token)
        return {"run_id": run_id}, b""

    async def _resume(self, arguments: dict[str, Any], body: bytes) -> Answer:
        token, resume_id = str(arguments["token"]), str(arguments["resume_id"])
        run_id = str(arguments["run_id"])
        meta = {"token": token, "resume": resume_id}
        message = Message(MessageKind.HOOK, run_id, meta=meta, payload=body).encode()
        outcome = await self._store.send(run_id, message, token=token, resume_id=resume_id)
        if outcome in (SendOutcome.UNKNOWN, SendOutcome.CLOSED):
            raise HookNotFoundError(token)
        return {"outcome": outcome.value}, b""

    def _steer(self, kind: MessageKind) -> Callable[[dict[str, Any], bytes], Awaitable[Answer]]:
        async def steer(arguments: dict[str, Any], _: bytes) -> Answer:
            record = await self._record(arguments)
            reason = arguments.get("reason", "")
            meta = {"reason": reason} if reason else {}
            body = Message(kind, record.run_id, meta=meta).encode()
            outcome = await self._store.send(record.run_id, body)
            if outcome is SendOutcome.UNKNOWN:
                raise RunNotFoundError(record.run_id)
            if outcome is SendOutcome.CLOSED:
                raise HookNotFoundError("")
            return {}, b""

        return steer

    async def _record(self, arguments: dict[str, Any]) -> RunRecord:
        run_id = str(arguments["run_id"])
        record = await self._store.read_run(run_id)
        if record is None or record.app != self.app:
            raise RunNotFoundError(run_id)
        return record

    def _is_over(self, run_id: str) -> bool:
        return RunStatus(self._status(run_id)).is_terminal

    def _status(self, run_id: str) -> str:
        """Where a run stands; one that goes on as another does so once that one exists."""
        status = self._drive.status(run_id)
        is_between = status == RunStatus.CONTINUED and not self._drive.has_run(
            continued_run_id(run_id)
        )
        return RunStatus.RUNNING.value if is_between else status
