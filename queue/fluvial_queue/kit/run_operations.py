"""What tests and steps ask about runs: to start them, to look at them, to steer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fluvial.errors import (
    InvalidRequestError,
    RunClosedError,
    RunNotFoundError,
    SingletonError,
    StartConflictError,
)
from fluvial.events import TERMINAL, decode_event
from fluvial.ids import continued_run_id
from fluvial.invocations import pack_events
from fluvial_queue.contract import (
    RunQuery,
    RunRecord,
    RunStatus,
    SendOutcome,
    StartOutcome,
    StartRun,
    Store,
)
from fluvial_queue.kit.instances import DEPLOYMENT
from fluvial_queue.kit.operations import Drive, Operation, OperationAnswer
from fluvial_queue.messages import Message, MessageKind

if TYPE_CHECKING:
    from fluvial.registry import Registry

_OPTIONS: Final = ("tags", "delay_ms", "deadline_ms", "retention_ms")  # of a start
_MAX_EVENTS: Final = 100_000  # in one answer


class RunOperations:
    """Carries out the operations on the runs of a test's app."""

    def __init__(self, app: str, registry: Registry, store: Store, drive: Drive) -> None:
        self._app = app
        self._registry = registry
        self._store = store
        self._drive = drive

    def operations(self) -> Mapping[str, Operation]:
        """Return the operations by name."""
        return {
            "start": self._start,
            "run": self._run,
            "result": self._result,
            "events": self._events,
            "state": self._state,
            "tag": self._tag,
            "runs": self._list,
            "cancel": self._cancel,
            "terminate": self._terminate,
            "pause": self._pause,
            "resume_run": self._resume,
            "wake": self._wake,
            "retry": self._retry,
        }

    # ---- starting ----

    async def _start(self, arguments: dict[str, Any], body: bytes) -> OperationAnswer:
        workflow = str(arguments["workflow"])
        if self._registry.find_workflow(workflow) is None:
            raise InvalidRequestError(f"no workflow {workflow!r} is registered")
        run = StartRun(
            run_id=arguments["run_id"],
            app=self._app,
            workflow=workflow,
            deployment=DEPLOYMENT,
            input=body,
            key=arguments.get("key") or "",
            fingerprint=arguments.get("fingerprint") or b"",
            meta=self._meta(arguments),
            **{name: arguments[name] for name in _OPTIONS if name in arguments},
        )
        if "singleton" in arguments:
            return await self._start_singleton(run, arguments["singleton"], arguments)
        return await self._start_run(run)

    def _meta(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what stands in a run's meta data beside its fields."""
        meta = {"priority": arguments["priority"]} if "priority" in arguments else {}
        if "deadline_ms" in arguments:
            meta["deadline_at"] = self._drive.now_ms + arguments["deadline_ms"]
        if "delay_ms" in arguments:
            meta["start_at"] = self._drive.now_ms + arguments["delay_ms"]
        return meta

    async def _start_run(self, run: StartRun) -> OperationAnswer:
        outcome = await self._store.start(run)
        if outcome is StartOutcome.CONFLICT:
            raise StartConflictError(run.key, run.run_id)
        return {"run_id": run.run_id, "outcome": outcome.value}, b""

    async def _start_singleton(
        self, run: StartRun, key: str, arguments: dict[str, Any]
    ) -> OperationAnswer:
        claim = await self._store.claim_singleton(self._app, key, run.run_id)
        if claim.holder != run.run_id:
            on_conflict = arguments.get("on_conflict", "reject")
            if on_conflict == "existing":
                return {"run_id": claim.holder, "outcome": "existing"}, b""
            if on_conflict == "reject":
                raise SingletonError(key, claim.holder)
            holder = claim.holder
            claim = await self._store.claim_singleton(self._app, key, run.run_id, replaces=holder)
            await self._send(holder, MessageKind.CANCEL, {"reason": "replaced"})
        return await self._start_run(replace(run, not_after_ms=claim.start_before_ms))

    # ---- looking ----

    async def _run(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
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

    async def _result(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        record = await self._record(arguments)
        run_id = record.run_id
        if not self._is_over(run_id) and arguments.get("wait_ms", 0):
            await self._drive.reach(lambda: self._is_over(run_id), f"the end of {run_id}")
            record = await self._record(arguments)
        if not self._is_over(run_id):
            return {"status": self._status(run_id)}, b""
        (last,) = await self._store.read_events(run_id, start=record.events - 1, limit=1)
        return {"status": record.status.value}, last if decode_event(last).type in TERMINAL else b""

    async def _events(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
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

    async def _state(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        record = await self._record(arguments)
        status = {"status": record.status.value}
        if record.state_at is None:
            return status, b""
        events = await self._store.read_events(record.run_id, start=record.state_at, limit=1)
        return status, events[0]

    async def _list(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        page = await self._store.query_runs(
            RunQuery(
                app=self._app,
                workflow=arguments["workflow"] or None,
                statuses=frozenset(map(RunStatus, arguments["statuses"])) or None,
                tags=arguments["tags"],
                parent=arguments["parent"] or None,
                limit=arguments["limit"],
                cursor=arguments["cursor"] or None,
            )
        )
        runs = [
            {
                "run_id": record.run_id,
                "status": self._status(record.run_id),
                "workflow": record.workflow,
                "tags": dict(record.tags),
            }
            for record in page.runs
        ]
        return {"runs": runs, "cursor": page.cursor or ""}, b""

    # ---- steering ----

    async def _tag(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        record = await self._record(arguments)
        return await self._ask(record, MessageKind.TAG, {"tags": dict(arguments["tags"])})

    async def _cancel(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        return await self._ask(
            await self._record(arguments), MessageKind.CANCEL, _reason(arguments)
        )

    async def _terminate(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        return await self._ask(
            await self._record(arguments), MessageKind.TERMINATE, _reason(arguments)
        )

    async def _pause(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        return await self._ask(await self._record(arguments), MessageKind.PAUSE, _reason(arguments))

    async def _resume(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        return await self._ask(await self._record(arguments), MessageKind.RESUME, {})

    async def _wake(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        return await self._ask(await self._record(arguments), MessageKind.WAKE, {})

    async def _retry(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        return await self._ask(await self._record(arguments), MessageKind.RETRY, {})

    async def _ask(
        self, record: RunRecord, kind: MessageKind, meta: dict[str, Any]
    ) -> OperationAnswer:
        if await self._send(record.run_id, kind, meta) is SendOutcome.CLOSED:
            raise RunClosedError(record.run_id)
        return {}, b""

    async def _send(self, run_id: str, kind: MessageKind, meta: dict[str, Any]) -> SendOutcome:
        return await self._store.send(run_id, Message(kind, run_id, meta=meta).encode())

    # ---- one run ----

    async def _record(self, arguments: dict[str, Any]) -> RunRecord:
        run_id = str(arguments["run_id"])
        record = await self._store.read_run(run_id)
        if record is None or record.app != self._app:
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


def _reason(arguments: dict[str, Any]) -> dict[str, str]:
    return {"reason": str(arguments["reason"])} if arguments.get("reason") else {}
