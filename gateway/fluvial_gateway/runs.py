"""Runs: starting, finding, steering and waiting for them, for the control API and for instances.

A start is pinned to a deployment before the store hears of it, and an ambiguous answer of the store
is resolved here: the same start is sent again, which the store recognises by the run's id.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeVar

from fluvial.errors import (
    InvalidRequestError,
    KeysFrozenError,
    RunClosedError,
    RunNotFoundError,
    SingletonError,
    StartConflictError,
    UnavailableError,
)
from fluvial.events import TERMINAL, Event, decode_event
from fluvial.ids import continued_run_id, keyed_run_id, new_run_id, partition_of
from fluvial.sealing import Binding, seal
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.fingerprints import Fingerprints, are_comparable
from fluvial_gateway.problems import (
    DeploymentRetiringError,
    ProblemError,
    WorkflowNotFoundError,
)
from fluvial_gateway.start_options import NO_OPTIONS, StartOptions
from fluvial_queue.contract import (
    DeleteOutcome,
    OutcomeUnknownError,
    RunPage,
    RunQuery,
    RunRecord,
    RunStatus,
    SendOutcome,
    SingletonClaim,
    StartOutcome,
    StartRun,
)
from fluvial_queue.hook_sends import MessageSender
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.records import AppRecord

MAX_KEY_CHARACTERS: Final = 512
MAX_EVENTS: Final = 1000  # in one answer
# Each try is a round trip with the store's own deadline; what lasts longer is told as a 503.
_TRIES: Final = 3
_MAX_HOPS: Final = 1000  # runs in a row that went on as new ones
_JSON: Final = b"j"
_Value = TypeVar("_Value")
LATEST: Final = "latest"  # instead of a deployment's id: where the app's production alias stands


class RunStore(MessageSender, Protocol):
    """The part of a store that runs need."""

    @property
    def partitions(self) -> int: ...

    async def start(self, run: StartRun) -> StartOutcome: ...

    async def delete_run(self, run_id: str) -> DeleteOutcome: ...

    async def claim_singleton(
        self, app: str, key: str, run_id: str, *, replaces: str = ""
    ) -> SingletonClaim: ...

    async def now_ms(self) -> int: ...

    async def token_holder(self, app: str, token: str) -> str | None: ...

    async def read_run(self, run_id: str) -> RunRecord | None: ...

    async def read_events(
        self, run_id: str, *, start: int = 0, limit: int = 1000
    ) -> list[bytes]: ...

    async def query_runs(self, query: RunQuery) -> RunPage: ...


class RunSignals(Protocol):
    """Tells when something happened to a run; the dispatcher does.

    All return when it happened, at once if it has happened already, and in any case after
    `seconds`. Which of these it was is for the caller to look up: a signal is a hint.
    """

    async def wait_for_events(self, run_id: str, position: int, seconds: float) -> None:
        """Wait until the log is longer than `position` or the run is terminal."""
        ...

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        """Wait until the run is terminal."""
        ...

    async def wait_for_start(self, run_id: str, seconds: float) -> None:
        """Wait until there is such a run."""
        ...


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a start."""

    run_id: str
    outcome: Literal["accepted", "duplicate", "existing"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """A workflow's arguments, as JSON values."""

    args: list[Any]
    kwargs: dict[str, Any]

    def plaintext(self) -> bytes:
        return json_plaintext(
            {"args": self.args, "kwargs": self.kwargs} if self.kwargs else self.args
        )


class Runs:
    """The runs of all apps."""

    def __init__(
        self,
        store: RunStore,
        catalogue: Catalogue,
        signals: RunSignals,
        fingerprints: Fingerprints,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._signals = signals
        self._fingerprints = fingerprints

    @property
    def partitions(self) -> int:
        return self._store.partitions

    async def start(
        self,
        app_name: str,
        workflow: str,
        arguments: Arguments,
        *,
        key: str = "",
        options: StartOptions = NO_OPTIONS,
        deployment: str | None = None,
    ) -> Started:
        """Start a run from JSON, on the app's production deployment or the one that is named.

        Raises:
            ProblemError, WorkflowNotFoundError, StartConflictError, SingletonError,
            KeysFrozenError
        """
        app = await self._catalogue.app(app_name)
        if deployment is None or deployment == LATEST:
            pinned, is_named = _production_of(app), False
        else:
            pinned, is_named = await self._named(app, deployment), True
        run_id = self._run_id(app_name, workflow, key)
        fingerprint = (
            self.fingerprint(app_name, workflow, [arguments.args, arguments.kwargs]) if key else b""
        )
        run = StartRun(
            run_id=run_id,
            app=app_name,
            workflow=workflow,
            deployment=pinned,
            input=sealed_for(app, arguments.plaintext(), Binding(app_name, run_id, "input")),
            key=key,
            fingerprint=fingerprint,
        )
        try:
            return await self.start_sealed(run, options)
        except DeploymentRetiringError:
            if is_named:
                raise
        # Production has moved, and what it was is being deleted, in this very moment.
        return await self.start_sealed(
            replace(run, deployment=await self._production(app_name)), options
        )

    def fingerprint(self, app: str, workflow: str, said: Any) -> bytes:
        """Return the fingerprint of what somebody has said in JSON."""
        return self._fingerprints.of(app, workflow, said)

    async def started_before(self, run_id: str, fingerprint: bytes, key: str) -> Started | None:
        """Return the answer to a start that was made before with the same key; None: it was not.

        Raises:
            StartConflictError: the key was used for something else.
        """
        existing = await self._store.read_run(run_id)
        if existing is None:
            return None
        theirs = existing.fingerprint
        if theirs != fingerprint and are_comparable(theirs, fingerprint):
            raise StartConflictError(key, run_id)
        return Started(run_id, "duplicate")

    async def start_sealed(self, run: StartRun, options: StartOptions = NO_OPTIONS) -> Started:
        """Start a run whose input is sealed already.

        Raises:
            ProblemError, WorkflowNotFoundError, StartConflictError, SingletonError
        """
        if options.is_latest:
            run = replace(run, deployment=await self._production(run.app))
        if options is not NO_OPTIONS:
            run = options.applied(run, await self._store.now_ms())
        if options.singleton:
            return await self._start_singleton(run, options)
        return await self._start(run)

    async def _start(self, run: StartRun) -> Started:
        deployment = await self._catalogue.deployment(run.deployment)
        known = deployment.functions.workflows
        if run.workflow not in known:
            raise WorkflowNotFoundError(run.workflow, deployment.spec.deployment, sorted(known))
        if run.retention_ms is None and deployment.retention_ms is not None:
            run = replace(run, retention_ms=deployment.retention_ms)
        outcome = await definite(lambda: self._store.start(run))
        if outcome is StartOutcome.ACCEPTED:
            return Started(run.run_id, "accepted")
        if outcome is StartOutcome.RETIRED:
            raise DeploymentRetiringError(run.deployment)
        if outcome is StartOutcome.LATE:
            raise UnavailableError(f"{run.run_id} was not started in time: start it again")
        await self._check_same(run, outcome)
        # An unkeyed id is random: a duplicate of it is this very start, sent twice.
        return Started(run.run_id, "duplicate" if run.key else "accepted")

    async def _start_singleton(self, run: StartRun, options: StartOptions) -> Started:
        """Claim the singleton, then start; or do what is to happen where another run lives."""
        app, key = run.app, options.singleton
        claim = await self._store.claim_singleton(app, key, run.run_id)
        if claim.holder != run.run_id:
            if options.on_conflict == "existing":
                return Started(claim.holder, "existing")
            if options.on_conflict == "reject":
                raise SingletonError(key, claim.holder)
            claim = await self._replaced(run, key, claim.holder)
        return await self._start(replace(run, not_after_ms=claim.start_before_ms))

    async def _replaced(self, run: StartRun, key: str, holder: str) -> SingletonClaim:
        claim = await self._store.claim_singleton(run.app, key, run.run_id, replaces=holder)
        if claim.holder != run.run_id:
            raise SingletonError(key, claim.holder)  # somebody else has replaced it first
        with suppress(RunClosedError, RunNotFoundError):  # it has ended by itself
            await self.send(holder, MessageKind.CANCEL, {"reason": "replaced"}, urgent=True)
        return claim

    async def _production(self, app_name: str) -> str:
        return _production_of(await self._catalogue.app(app_name))

    async def get(self, run_id: str, *, app: str | None = None) -> RunRecord:
        """Return a run; with `app`, only if it is that app's.

        Raises:
            RunNotFoundError, InvalidRequestError
        """
        record = None
        if partition_of(run_id) < self._store.partitions:
            record = await self._store.read_run(run_id)
        if record is None or (app is not None and record.app != app):
            raise RunNotFoundError(run_id)
        return record

    async def now_ms(self) -> int:
        """Return the store's time."""
        return await self._store.now_ms()

    async def page(self, query: RunQuery) -> RunPage:
        return await self._store.query_runs(query)

    async def events(self, run_id: str, *, start: int, limit: int = MAX_EVENTS) -> list[bytes]:
        return await self._store.read_events(run_id, start=start, limit=min(limit, MAX_EVENTS))

    async def state(self, record: RunRecord) -> bytes:
        """Return the event with which a run has published its state last; empty: it has not."""
        if record.state_at is None:
            return b""
        events = await self._store.read_events(record.run_id, start=record.state_at, limit=1)
        return events[0] if events else b""

    async def check_may_seal(self, app_name: str) -> None:
        """Raises:
        KeysFrozenError: nothing is sealed for the app now.
        """
        check_may_seal(await self._catalogue.app(app_name))

    async def wait_for_end(self, record: RunRecord, seconds: float) -> RunRecord:
        """Return the run as it is once it is terminal or `seconds` have passed."""
        if record.status.is_terminal or seconds <= 0:
            return record
        await self._signals.wait_for_end(record.run_id, seconds)
        return await self.get(record.run_id)

    async def wait_for_events(self, run_id: str, position: int, seconds: float) -> RunRecord:
        """Return the run as it is once its log is longer than `position`, it is terminal, or
        `seconds` have passed."""
        record = await self.get(run_id)
        if record.events > position or record.status.is_terminal or seconds <= 0:
            return record
        await self._signals.wait_for_events(run_id, position, seconds)
        return await self.get(run_id)

    async def following(self, record: RunRecord, seconds: float) -> RunRecord | None:
        """Return the run that goes on in the place of a continued one, waiting up to `seconds` for
        it to begin; None: it has not, or none does."""
        if record.status is not RunStatus.CONTINUED:
            return None
        run_id = continued_run_id(record.run_id)
        if await self._store.read_run(run_id) is None and seconds > 0:
            await self._signals.wait_for_start(run_id, seconds)
        return await self._store.read_run(run_id)

    async def last_event(self, record: RunRecord) -> tuple[Event, bytes] | None:
        """Return the event that ended a terminal run; None while it goes on."""
        if not record.status.is_terminal or record.events == 0:
            return None
        encoded = await self._store.read_events(record.run_id, start=record.events - 1, limit=1)
        if not encoded:
            return None
        event = decode_event(encoded[0])
        return (event, encoded[0]) if event.type in TERMINAL else None

    async def deployment_for(self, record: RunRecord, named: str | None) -> str:
        """Return the id of the deployment that is named for a run: None is its own, `latest` the
        app's production.

        Raises:
            ProblemError: the app has no such deployment.
            WorkflowNotFoundError: the deployment has no such workflow.
        """
        if named is None:
            return record.deployment
        app = await self._catalogue.app(record.app)
        wanted = _production_of(app) if named == LATEST else await self._named(app, named)
        deployment = await self._catalogue.deployment(wanted)
        known = deployment.functions.workflows
        if record.workflow not in known:
            raise WorkflowNotFoundError(record.workflow, deployment.spec.deployment, sorted(known))
        return deployment.spec.deployment

    async def _named(self, app: AppRecord, named: str) -> str:
        if any(entry.deployment == named for entry in app.retiring):
            raise DeploymentRetiringError(named)
        return (await self._catalogue.deployment_of(app.app, named)).spec.deployment

    async def send(
        self,
        run_id: str,
        kind: MessageKind,
        meta: dict[str, Any],
        *,
        correlation: int = 0,
        key: str = "",
        urgent: bool = False,
    ) -> str:
        """Send a message to a run, or to the one that goes on in its place; return which it was.

        `key`: the same message is sent once to each run. `urgent`: as in `Store.send`.

        Raises:
            RunNotFoundError, RunClosedError
        """
        for _ in range(_MAX_HOPS):
            body = Message(kind, run_id, correlation, meta=meta).encode()
            send = partial(self._store.send, run_id, body, resume_id=key, urgent=urgent)
            outcome = await definite(send)
            if outcome is SendOutcome.UNKNOWN:
                raise RunNotFoundError(run_id)
            if outcome is not SendOutcome.CLOSED:
                return run_id
            ended = await self._store.read_run(run_id)
            if ended is None or ended.status is not RunStatus.CONTINUED:
                break
            run_id = continued_run_id(run_id)
        raise RunClosedError(run_id)

    async def delete(self, run_id: str) -> DeleteOutcome:
        """Remove a run that has ended, and its log, for good."""
        return await definite(lambda: self._store.delete_run(run_id))

    def _run_id(self, app: str, workflow: str, key: str) -> str:
        if key:
            return keyed_run_id(app, workflow, key, self._store.partitions)
        return new_run_id(self._store.partitions)

    async def _check_same(self, run: StartRun, outcome: StartOutcome) -> None:
        """The id exists. It must be the same start: the id may be one that an instance invented."""
        existing = await self._store.read_run(run.run_id)
        if existing is None:
            return  # its retention ended just now
        if (existing.app, existing.workflow, existing.key) != (run.app, run.workflow, run.key):
            raise InvalidRequestError(f"the id {run.run_id} is taken")
        if outcome is StartOutcome.CONFLICT and are_comparable(
            existing.fingerprint, run.fingerprint
        ):
            raise StartConflictError(run.key, run.run_id)


def json_plaintext(value: Any) -> bytes:
    """Return a JSON value as what is sealed; what cannot be UTF-8 is replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _JSON + text.encode("utf-8", "replace")


def _production_of(app: AppRecord) -> str:
    if app.production is None:
        raise ProblemError("nothing_deployed", f"app {app.app!r}: promote a deployment first")
    return app.production


def check_may_seal(app: AppRecord) -> None:
    """Raises:
    KeysFrozenError: nothing is sealed for the app now.
    """
    if app.keys_frozen:
        raise KeysFrozenError(app.app)


def sealed_for(app: AppRecord, plaintext: bytes, binding: Binding) -> bytes:
    """Return `plaintext` so that only instances of `app` can open it, and only in this place.

    Raises:
        KeysFrozenError: nothing is sealed for the app now.
    """
    check_may_seal(app)
    return seal(app.public_key, app.key_id, plaintext, binding)


async def definite(operation: Callable[[], Awaitable[_Value]]) -> _Value:
    """Carry out an idempotent operation of the store until its outcome is known.

    Raises:
        OutcomeUnknownError: it still is not known after some tries.
    """
    for _ in range(_TRIES - 1):
        try:
            return await operation()
        except OutcomeUnknownError:
            continue
    return await operation()
