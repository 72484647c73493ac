"""What instances ask of hooks: to resume one by its token, to talk to runs, to hear answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fluvial.hook_tokens import named_token
from fluvial_gateway.call_arguments import (
    MAX_INPUT_BYTES,
    MAX_NAME_CHARACTERS,
    check_size,
    natural_of,
    text_of,
    wait_seconds_of,
)
from fluvial_gateway.hook_answers import Answered, HookAnswers
from fluvial_gateway.hooks import MAX_TOKEN_CHARACTERS, Hooks
from fluvial_gateway.link_calls import CallAnswer, CallOperation, LinkContext
from fluvial_gateway.runs import MAX_KEY_CHARACTERS, Runs
from fluvial_gateway.talking import Talking
from fluvial_queue.contract import RunRecord

_MAX_RESUME_CHARACTERS: Final = MAX_KEY_CHARACTERS


class HookCalls:
    """Carries out calls about hooks of the caller's app."""

    def __init__(self, runs: Runs, hooks: Hooks, talking: Talking, answers: HookAnswers) -> None:
        self._runs = runs
        self._hooks = hooks
        self._talking = talking
        self._answers = answers

    def operations(self) -> Mapping[str, CallOperation]:
        """Return what is carried out here, by name."""
        return {
            "token": self._token,
            "resume": self._resume,
            "hook_send": self._send,
            "hook_answer": self._answer,
        }

    async def _token(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        token = text_of(arguments, "token", MAX_TOKEN_CHARACTERS)
        record = await self._hooks.find(context.app, token)
        return {"run_id": record.run_id}, b""

    async def _resume(
        self, context: LinkContext, arguments: Mapping[str, Any], body: bytes
    ) -> CallAnswer:
        token = text_of(arguments, "token", MAX_TOKEN_CHARACTERS)
        resume_id = text_of(arguments, "resume_id", _MAX_RESUME_CHARACTERS)
        check_size("the payload", body, MAX_INPUT_BYTES)
        record = await self._record(context, arguments)
        resumed = await self._hooks.resume_sealed(record, token, body, resume_id)
        return {"outcome": resumed.outcome}, b""

    async def _send(
        self, context: LinkContext, arguments: Mapping[str, Any], body: bytes
    ) -> CallAnswer:
        name = text_of(arguments, "name", MAX_NAME_CHARACTERS)
        resume_id = text_of(arguments, "resume_id", _MAX_RESUME_CHARACTERS)
        check_size("the payload", body, MAX_INPUT_BYTES)
        said = await self._talking.say_sealed(
            await self._record(context, arguments),
            name,
            body,
            resume_id,
            asks=arguments.get("ask") is True,
            seconds=wait_seconds_of(arguments),
        )
        return {"outcome": said.outcome, "position": said.position}, b""

    async def _answer(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        record = await self._record(context, arguments)
        found = await self._answers.wait(
            record.run_id,
            named_token(record.run_id, text_of(arguments, "name", MAX_NAME_CHARACTERS)),
            text_of(arguments, "resume_id", _MAX_RESUME_CHARACTERS),
            start=natural_of(arguments, "start"),
            seconds=wait_seconds_of(arguments),
        )
        if isinstance(found, Answered):
            return {"outcome": "answered"}, found.event
        outcome = "ended" if found.is_over else "waiting"
        return {"outcome": outcome, "status": found.status, "position": found.position}, b""

    async def _record(self, context: LinkContext, arguments: Mapping[str, Any]) -> RunRecord:
        run_id = text_of(arguments, "run_id", MAX_NAME_CHARACTERS)
        return await self._runs.get(run_id, app=context.app)
