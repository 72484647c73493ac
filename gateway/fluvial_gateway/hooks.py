"""Resuming hooks from outside: which run has a token, and the hand-over of a payload to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from fluvial.errors import HookNotFoundError, RunNotFoundError
from fluvial.sealing import Binding
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.problems import RunClosedError
from fluvial_gateway.runs import Runs, RunStore, definite, sealed_for
from fluvial_queue.contract import RunRecord, SendOutcome
from fluvial_queue.messages import Message, MessageKind

MAX_TOKEN_CHARACTERS: Final = 512
# A token that the SDK generated carries the id of its run, so it needs no index.
_GENERATED: Final = re.compile(r"hook_([0-9a-hjkmnp-tv-z]{26})_[\w-]{1,128}")
_JSON: Final = b"j"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The answer to a resume."""

    run_id: str
    outcome: Literal["accepted", "duplicate"]


class Hooks:
    """The open hooks of all apps' runs."""

    def __init__(self, store: RunStore, catalogue: Catalogue, runs: Runs) -> None:
        self._store = store
        self._catalogue = catalogue
        self._runs = runs

    async def find(self, app: str, token: str) -> RunRecord:
        """Return the run of `app` that opened a hook with this token, now or once.

        Raises:
            HookNotFoundError
        """
        generated = _GENERATED.fullmatch(token)
        run_id = (
            f"run_{generated.group(1)}"
            if generated is not None
            else await self._store.token_holder(app, token)
        )
        if run_id is None:
            raise HookNotFoundError(token)
        try:
            return await self._runs.get(run_id, app=app)
        except RunNotFoundError as error:
            raise HookNotFoundError(token) from error

    async def resume_json(
        self, app_name: str, token: str, payload: bytes, resume_id: str
    ) -> Resumed:
        """Deliver a JSON text to the hook.

        Raises:
            ProblemError, HookNotFoundError, RunClosedError, KeysFrozenError
        """
        app = await self._catalogue.app(app_name)
        record = await self.find(app_name, token)
        binding = Binding(app_name, record.run_id, "hook", token)
        sealed = sealed_for(app, _JSON + payload, binding)
        return await self.resume_sealed(record, token, sealed, resume_id)

    async def resume_sealed(
        self, record: RunRecord, token: str, payload: bytes, resume_id: str
    ) -> Resumed:
        """Deliver a payload that is sealed already.

        Raises:
            HookNotFoundError, RunClosedError
        """
        meta = {"token": token, "resume": resume_id}
        body = Message(MessageKind.HOOK, record.run_id, meta=meta, payload=payload).encode()
        outcome = await definite(
            lambda: self._store.send(record.run_id, body, token=token, resume_id=resume_id)
        )
        match outcome:
            case SendOutcome.ACCEPTED:
                return Resumed(record.run_id, "accepted")
            case SendOutcome.DUPLICATE:
                return Resumed(record.run_id, "duplicate")
            case SendOutcome.UNKNOWN:
                raise HookNotFoundError(token)
            case SendOutcome.CLOSED:
                raise await self._closed(record.run_id, token)

    async def _closed(self, run_id: str, token: str) -> HookNotFoundError | RunClosedError:
        record = await self._runs.get(run_id)
        return RunClosedError(run_id) if record.status.is_terminal else HookNotFoundError(token)
