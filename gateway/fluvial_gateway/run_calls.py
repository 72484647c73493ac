"""What instances ask of runs beside starting and ending them: their state, and their tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluvial_gateway.call_arguments import MAX_NAME_CHARACTERS, text_of
from fluvial_gateway.link_calls import CallAnswer, CallOperation, LinkContext
from fluvial_gateway.runs import Runs
from fluvial_gateway.start_options import tag_change_of
from fluvial_queue.contract import RunRecord


class RunCalls:
    """Carries out the calls about runs of the caller's app."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def operations(self) -> Mapping[str, CallOperation]:
        """Return the operations by name."""
        return {"state": self._state, "tag": self._tag}

    async def _state(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        record = await self._record(context, arguments)
        return {"status": record.status.value}, await self._runs.state(record)

    async def _tag(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        record = await self._record(context, arguments)
        await self._runs.tag(record, tag_change_of(arguments.get("tags")), by=context.instance)
        return {}, b""

    async def _record(self, context: LinkContext, arguments: Mapping[str, Any]) -> RunRecord:
        run_id = text_of(arguments, "run_id", MAX_NAME_CHARACTERS)
        return await self._runs.get(run_id, app=context.app)
