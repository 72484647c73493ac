"""What instances ask of the runs of their app: lists, their state, and to steer them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from fluvial.errors import InvalidRequestError
from fluvial_gateway.call_arguments import MAX_NAME_CHARACTERS, natural_of, text_of
from fluvial_gateway.link_calls import CallAnswer, CallOperation, LinkContext
from fluvial_gateway.runs import Runs
from fluvial_gateway.start_options import tag_change_of, tags_of
from fluvial_gateway.steering import MAX_REASON_CHARACTERS, Action, Steering, Wish
from fluvial_queue.contract import RunQuery, RunRecord, RunStatus

_LOG = logging.getLogger(__name__)
_MAX_PAGE: Final = 500
_MAX_CURSOR_CHARACTERS: Final = 1024

# What they are called by instances. To resume a *run* is not to resume a *hook*.
_ACTIONS: Final[Mapping[str, Action]] = {
    "cancel": "cancel",
    "terminate": "terminate",
    "pause": "pause",
    "resume_run": "resume",
    "wake": "wake",
    "retry": "retry",
    "tag": "tag",
}


class RunCalls:
    """Carries out the calls about runs of the caller's app."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._steering = Steering(runs)

    def operations(self) -> Mapping[str, CallOperation]:
        """Return the operations by name."""
        steering = {name: partial(self._steer, action) for name, action in _ACTIONS.items()}
        return {"state": self._state, "runs": self._list, **steering}

    async def _state(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        record = await self._record(context, arguments)
        return {"status": record.status.value}, await self._runs.state(record)

    async def _list(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        page = await self._runs.page(
            RunQuery(
                app=context.app,
                workflow=text_of(arguments, "workflow", MAX_NAME_CHARACTERS, default="") or None,
                statuses=_statuses(arguments),
                tags=tags_of(arguments.get("tags")),
                parent=text_of(arguments, "parent", MAX_NAME_CHARACTERS, default="") or None,
                limit=max(1, min(natural_of(arguments, "limit"), _MAX_PAGE)),
                cursor=text_of(arguments, "cursor", _MAX_CURSOR_CHARACTERS, default="") or None,
            )
        )
        runs = [
            {
                "run_id": record.run_id,
                "status": record.status.value,
                "workflow": record.workflow,
                "tags": dict(record.tags),
            }
            for record in page.runs
        ]
        return {"runs": runs, "cursor": page.cursor or ""}, b""

    async def _steer(
        self, action: Action, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        wish = Wish(
            action=action,
            by=context.instance,
            reason=text_of(arguments, "reason", MAX_REASON_CHARACTERS, default=""),
            deployment=text_of(arguments, "deployment", MAX_NAME_CHARACTERS, default="") or None,
            timer=natural_of(arguments, "timer"),
            tags=tag_change_of(arguments.get("tags")) if action == "tag" else {},
        )
        record = await self._record(context, arguments)
        await self._steering.carry_out(record, wish)
        _LOG.info(
            "run steered by an instance",
            extra={"run_id": record.run_id, "how": action, "instance": context.instance},
        )
        return {}, b""

    async def _record(self, context: LinkContext, arguments: Mapping[str, Any]) -> RunRecord:
        run_id = text_of(arguments, "run_id", MAX_NAME_CHARACTERS)
        return await self._runs.get(run_id, app=context.app)


def _statuses(arguments: Mapping[str, Any]) -> frozenset[RunStatus] | None:
    """Return which statuses are asked for; None: all."""
    names = arguments.get("statuses")
    if not names:
        return None
    try:
        return frozenset(RunStatus(name) for name in names)
    except (ValueError, TypeError):
        known = ", ".join(RunStatus)
        raise InvalidRequestError(f"statuses: expected some of {known}") from None
