"""Resuming hooks from outside: which run has a token, and the hand-over of a payload to it.

A payload is accepted by the store in the moment in which its hook is open, and then it is in the
run's log, once, unless the run ends first. What comes as JSON is held against the schema that the
hook's opening has written down; what an instance has sealed, only the run can look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from fluvial.errors import HookNotFoundError, RunClosedError, RunNotFoundError
from fluvial.events import Event, decode_event
from fluvial.hook_tokens import run_of_token
from fluvial.schema_checks import mismatch
from fluvial.sealing import Binding
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import Runs, RunStore, definite, json_plaintext, sealed_for
from fluvial_queue.contract import RunRecord, SendOutcome
from fluvial_queue.hook_contract import FoundHook, OpenHook
from fluvial_queue.hook_sends import HookSender, Payload, send_payload

MAX_TOKEN_CHARACTERS: Final = 512


class HookRunStore(RunStore, HookSender, Protocol):
    """The part of a store that hooks need."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open hook, and the event that says what it was opened with."""

    id: int
    token: str
    event: Event


@dataclass(frozen=True, slots=True)
class Resumed:
    """The answer to a resume."""

    run_id: str
    outcome: Literal["accepted", "duplicate"]
    position: int  # in the run's log, behind which everything about this payload stands


class Hooks:
    """The open hooks of all apps' runs."""

    def __init__(self, store: HookRunStore, catalogue: Catalogue, runs: Runs) -> None:
        self._store = store
        self._catalogue = catalogue
        self._runs = runs

    async def find(self, app: str, token: str) -> RunRecord:
        """Return the run of `app` that opened a hook with this token, now or once.

        A made token names its run; where that has ended, a fork of it may have taken it over.

        Raises:
            HookNotFoundError
        """
        maker = await self._run(app, run_of_token(token))
        if maker is not None and not maker.status.is_terminal:
            return maker
        found = await self._run(app, await self._store.token_holder(app, token)) or maker
        if found is None:
            raise HookNotFoundError(token)
        return found

    async def _run(self, app: str, run_id: str | None) -> RunRecord | None:
        if run_id is None:
            return None
        try:
            return await self._runs.get(run_id, app=app)
        except RunNotFoundError:
            return None

    async def standing(self, run_id: str, token: str) -> FoundHook:
        """Return how a hook stands, by one question to the store whatever the answer is."""
        return await self._store.find_hook(run_id, token)

    async def open_hook(self, run_id: str, token: str) -> OpenHook | None:
        """Return a run's hook, if it is open."""
        found = await self.standing(run_id, token)
        return found if isinstance(found, OpenHook) else None

    async def token_of(self, run_id: str, hook_id: int) -> str:
        """Return the token of a run's open hook.

        Raises:
            HookNotFoundError: no hook of that id is open.
        """
        hooks = await self._store.open_hooks(run_id)
        for token, hook in hooks.items():
            if hook.id == hook_id:
                return token
        raise HookNotFoundError(str(hook_id), run_id)

    async def opened(self, run_id: str, *, start: int = 0, limit: int) -> list[Opened]:
        """Return open hooks of a run with ids from `start` on, by their ids, at most `limit`."""
        hooks = await self._store.open_hooks(run_id)
        by_id = sorted((hook, token) for token, hook in hooks.items() if hook.id >= start)
        found: list[Opened] = []
        for hook, token in by_id[:limit]:
            event = await self.opening(run_id, hook)
            if event is not None:
                found.append(Opened(hook.id, token, event))
        return found

    async def opening(self, run_id: str, hook: OpenHook) -> Event | None:
        """Return the event with which a hook was opened; None: the run is gone."""
        encoded = await self._runs.events(run_id, start=hook.position, limit=1)
        return decode_event(encoded[0]) if encoded else None

    async def resume_json(self, app: str, token: str, value: Any, resume_id: str) -> Resumed:
        """Deliver a JSON value to the hook of that token.

        Raises:
            ProblemError, HookNotFoundError, RunClosedError, KeysFrozenError
        """
        await self._catalogue.app(app)
        return await self.deliver_json(await self.find(app, token), token, value, resume_id)

    async def resume_sealed(
        self, record: RunRecord, token: str, payload: bytes, resume_id: str
    ) -> Resumed:
        """Deliver a payload that is sealed already.

        Raises:
            HookNotFoundError, RunClosedError
        """
        hook = await self.open_hook(record.run_id, token)
        return await self.deliver(record, token, hook, payload, resume_id)

    async def deliver_json(
        self,
        record: RunRecord,
        token: str,
        value: Any,
        resume_id: str,
        *,
        asks: bool = False,
        hook_id: int = 0,
    ) -> Resumed:
        """Deliver a JSON value to a hook of a run; with `hook_id`, to that one alone.

        Raises:
            ProblemError, HookNotFoundError, RunClosedError, KeysFrozenError
        """
        app = await self._catalogue.app(record.app)
        hook = await self.open_hook(record.run_id, token)
        if hook is not None:
            opening = await self.opening(record.run_id, hook)
            if opening is not None and "webhook" in opening.meta:
                raise ProblemError("payload_invalid", "this is a webhook: send requests to its URL")
            check_fits(opening, value)
        binding = Binding(record.app, record.run_id, "hook", token)
        sealed = sealed_for(app, json_plaintext(value), binding)
        return await self.deliver(
            record, token, hook, sealed, resume_id, asks=asks, hook_id=hook_id
        )

    async def deliver(
        self,
        record: RunRecord,
        token: str,
        hook: OpenHook | None,
        payload: bytes,
        resume_id: str,
        *,
        asks: bool = False,
        hook_id: int = 0,
    ) -> Resumed:
        """Deliver a sealed payload; `hook` is what `open_hook` has found just now, if it did.

        Raises:
            HookNotFoundError: it is not open.
            RunClosedError: the run has ended.
        """
        sending = Payload(
            run_id=record.run_id,
            token=token,
            resume_id=resume_id,
            sealed=payload,
            asks=asks,
            hook_id=hook_id,
        )
        outcome = await definite(lambda: send_payload(self._store, sending, found=hook))
        if outcome is SendOutcome.ACCEPTED:
            return Resumed(record.run_id, "accepted", record.events)
        if outcome is SendOutcome.DUPLICATE:
            return Resumed(record.run_id, "duplicate", 0)
        raise await self._not_open(record.run_id, token)

    async def _not_open(self, run_id: str, token: str) -> HookNotFoundError | RunClosedError:
        record = await self._runs.get(run_id)
        return RunClosedError(run_id) if record.status.is_terminal else HookNotFoundError(token)


def check_fits(opening: Event | None, value: Any) -> None:
    """Refuse a JSON value that the hook does not take, as far as its opening tells.

    Raises:
        ProblemError
    """
    if opening is None:
        return
    wrong = mismatch(value, opening.meta.get("schema"))
    if wrong is not None:
        raise ProblemError("payload_invalid", str(wrong), extra={"path": wrong.path})
