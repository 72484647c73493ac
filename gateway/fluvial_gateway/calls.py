"""Calls: what an instance may ask of the platform.

Who calls is known from the link; nothing in a call's arguments is believed. Every run that a call
names must be of the caller's app, else it does not exist for the caller, and a new run is pinned to
the caller's own deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fluvial.errors import InvalidRequestError, SingletonError
from fluvial.ids import keyed_run_id, partition_of
from fluvial.invocations import pack_events
from fluvial_gateway.call_arguments import (
    MAX_INPUT_BYTES,
    MAX_NAME_CHARACTERS,
    bytes_of,
    check_size,
    natural_of,
    text_of,
    wait_seconds_of,
)
from fluvial_gateway.link_calls import CallAnswer, CallOperation, LinkContext
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import MAX_KEY_CHARACTERS, Runs
from fluvial_gateway.start_options import StartOptions
from fluvial_queue.contract import RunRecord, StartRun

_MAX_FINGERPRINT_BYTES: Final = 64
# What one answer may carry; a reader asks again from `next`.
_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024


class Calls:
    """Carries out the calls of all links; a `CallHandler`."""

    def __init__(self, runs: Runs, *further: Mapping[str, CallOperation]) -> None:
        """`further`: operations that other parts carry out."""
        self._runs = runs
        self._operations: dict[str, CallOperation] = {
            "start": self._start,
            "run": self._run,
            "events": self._events,
            "result": self._result,
        }
        for operations in further:
            self._operations.update(operations)

    async def handle(
        self, link_context: LinkContext, operation: str, arguments: dict[str, Any], body: bytes
    ) -> tuple[str, dict[str, Any], bytes]:
        """Return ("ok" or an error code, result, body).

        Raises:
            FluvialError: told to the instance by its code.
        """
        handler = self._operations.get(operation)
        if handler is None:
            known = ", ".join(self._operations)
            raise InvalidRequestError(f"unknown operation {operation[:40]!r}; known: {known}")
        try:
            result, payload = await handler(link_context, arguments, body)
        except ProblemError as error:
            return error.problem_code, {"message": str(error)}, b""
        except SingletonError as error:
            return error.code, {"message": str(error), "run_id": error.run_id}, b""
        return "ok", result, payload

    async def _start(
        self, context: LinkContext, arguments: Mapping[str, Any], body: bytes
    ) -> CallAnswer:
        workflow = text_of(arguments, "workflow", MAX_NAME_CHARACTERS)
        key = text_of(arguments, "key", MAX_KEY_CHARACTERS, default="")
        run_id = self._checked_run_id(context.app, workflow, key, arguments)
        check_size("the input", body, MAX_INPUT_BYTES)
        fingerprint = bytes_of(arguments, "fingerprint", _MAX_FINGERPRINT_BYTES)
        started = await self._runs.start_sealed(
            StartRun(
                run_id=run_id,
                app=context.app,
                workflow=workflow,
                deployment=context.deployment,
                input=body,
                key=key,
                fingerprint=fingerprint,
            ),
            StartOptions.of(arguments),
        )
        return {"run_id": started.run_id, "outcome": started.outcome}, b""

    def _checked_run_id(
        self, app: str, workflow: str, key: str, arguments: Mapping[str, Any]
    ) -> str:
        run_id = text_of(arguments, "run_id", MAX_NAME_CHARACTERS)
        partitions = self._runs.partitions
        if partition_of(run_id) >= partitions:
            raise InvalidRequestError(f"{run_id} names none of the {partitions} partitions")
        if key and run_id != keyed_run_id(app, workflow, key, partitions):
            raise InvalidRequestError(f"{run_id} is not the run of the key {key!r}")
        return run_id

    async def _run(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        record = await self._record(context, arguments)
        return {
            "status": record.status.value,
            "workflow": record.workflow,
            "deployment": record.deployment,
            "created_ms": record.created_ms,
            "finished_ms": record.finished_ms,
            "events": record.events,
            "tags": dict(record.tags),
        }, b""

    async def _events(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        start = natural_of(arguments, "start")
        record = await self._record(context, arguments)
        if record.events <= start:
            record = await self._runs.wait_for_events(
                record.run_id, start, wait_seconds_of(arguments)
            )
        events = _bounded(await self._runs.events(record.run_id, start=start))
        return {"status": record.status.value, "next": start + len(events)}, pack_events(events)

    async def _result(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        record = await self._record(context, arguments)
        record = await self._runs.wait_for_end(record, wait_seconds_of(arguments))
        ended = await self._runs.last_event(record)
        return {"status": record.status.value}, b"" if ended is None else ended[1]

    async def _record(self, context: LinkContext, arguments: Mapping[str, Any]) -> RunRecord:
        run_id = text_of(arguments, "run_id", MAX_NAME_CHARACTERS)
        return await self._runs.get(run_id, app=context.app)


def _bounded(events: list[bytes]) -> list[bytes]:
    """Return as many of the first events as one answer may carry, at least one."""
    size = 0
    for index, event in enumerate(events):
        size += len(event)
        if size > _MAX_EVENT_BYTES and index:
            return events[:index]
    return events
