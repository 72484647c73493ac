"""Aliases: movable names of an app's deployments, `production` first of all, and how they move.

An app's aliases are part of its record and move by compare-and-set, so two moves at once happen one
after the other. A move whose answer was lost is recognised by its effect and not repeated: a
rollback that is done twice would be none. The crons of the production deployment stand in the same
record, so they move with the alias. So does the newest move itself: who moved what, when, from
where and where to. It goes into the app's history before the next one takes its place.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from fluvial.errors import FluvialError, InvalidRequestError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.problems import DeploymentRetiringError, ProblemError
from fluvial_queue.alias_records import PRODUCTION, AliasMove, LeftDeployment, MoveReason
from fluvial_queue.contract import OutcomeUnknownError
from fluvial_queue.records import ActiveCron, AppRecord, DeploymentRecord
from fluvial_queue.rollout_records import RolloutRecord

_LOG = logging.getLogger(__name__)

# A host is `<alias>--<app>`: with an app's 40 characters that stays below the 63 of a DNS label.
ALIAS_NAME: Final = re.compile(r"(?!dpl-)[a-z](?:-?[a-z0-9]){0,19}")
MAX_ALIAS_CHARACTERS: Final = 20
MAX_ALIASES: Final = 50  # of an app; its record is read whenever a run is started
MAX_PIN_MS: Final = 7 * 24 * 3600 * 1000
_MAX_LEFT: Final = 20
# Others who move the same alias at the same moment win at most so often in a row.
_TRIES: Final = 5

Change = Callable[[AppRecord | None], Awaitable[AppRecord]]
"""Gets an app's record as it is (None: there is none); returns it as it shall be."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """When, by whom and why an alias is moved."""

    at_ms: int
    by: str
    reason: MoveReason


class Aliases:
    """Changes app records, and has the routes follow."""

    def __init__(self, catalogue: Catalogue, reload_routes: Callable[[], Awaitable[None]]) -> None:
        self._catalogue = catalogue
        self._reload_routes = reload_routes

    async def promote(self, app_name: str, deployment_id: str, *, by: str) -> AppRecord:
        """Move the alias `production` to a deployment of the app.

        Raises:
            ProblemError: there is no such app or deployment.
        """
        deployment = await self._catalogue.deployment_of(app_name, deployment_id)
        occasion = Occasion(await self._catalogue.now_ms(), by, "promote")

        async def change(app: AppRecord) -> AppRecord:
            return promoted(app, deployment, occasion)

        return await self._move(app_name, change)

    async def rollback(self, app_name: str, *, by: str, to: str | None = None) -> AppRecord:
        """Move the alias `production` back to where it was before the last move, or to a named
        deployment. While a rollout is under way, the former aborts that.

        Raises:
            ProblemError: there is no such app or deployment, or nothing to go back to.
        """
        occasion = Occasion(await self._catalogue.now_ms(), by, "rollback")

        async def change(app: AppRecord) -> AppRecord:
            if to is None and app.rollout is not None and app.rollout.is_active:
                # What is to be undone is the rollout: production has not moved yet.
                rollout = app.rollout.ended("aborted", occasion.at_ms, f"rolled back by {by}")
                return replace(app, rollout=rollout)
            target = to or app.previous
            if target is None:
                raise ProblemError(
                    "no_previous_deployment", f"app {app_name!r} has had no other production"
                )
            return promoted(app, await self._catalogue.deployment_of(app_name, target), occasion)

        return await self._move(app_name, change)

    async def set(self, app_name: str, alias: str, deployment_id: str, *, by: str) -> AppRecord:
        """Move an alias other than `production` to a deployment of the app; make it if need be.

        Raises:
            ProblemError: there is no such app or deployment, or no room for another alias.
            InvalidRequestError: the name is none for an alias.
        """
        check_alias_name(alias)
        deployment = await self._catalogue.deployment_of(app_name, deployment_id)
        if await self._catalogue.find_app(f"{alias}--{app_name}") is not None:
            raise ProblemError(
                "alias_conflict", f"an app is called {alias}--{app_name}, and has the alias's host"
            )
        occasion = Occasion(await self._catalogue.now_ms(), by, "set")

        async def change(app: AppRecord) -> AppRecord:
            if alias not in app.aliases and len(app.aliases) >= MAX_ALIASES:
                raise ProblemError(
                    "alias_limit", f"app {app_name!r} has {MAX_ALIASES} aliases: remove one first"
                )
            return _with_alias(app, alias, deployment.spec.deployment, occasion)

        return await self._move(app_name, change)

    async def remove(self, app_name: str, alias: str, *, by: str) -> AppRecord:
        """Remove an alias other than `production`.

        Raises:
            ProblemError: there is no such app or alias.
            InvalidRequestError: the name is none for an alias.
        """
        check_alias_name(alias)
        occasion = Occasion(await self._catalogue.now_ms(), by, "remove")

        async def change(app: AppRecord) -> AppRecord:
            if alias not in app.aliases:
                names = ", ".join(sorted(app.aliases)) or "none"
                raise ProblemError(
                    "alias_not_found", f"app {app_name!r} has no alias {alias!r}; it has: {names}"
                )
            return _with_alias(app, alias, None, occasion)

        return await self._move(app_name, change)

    async def history(self, app_name: str, alias: str | None = None) -> list[AliasMove]:
        """Return how the app's aliases moved, newest first.

        Raises:
            ProblemError: there is no such app.
        """
        app = await self._catalogue.app(app_name)
        history = (await self._catalogue.history(app_name)).history
        if app.last_move is not None:
            history = history.with_move(app.last_move)
        return [move for move in reversed(history.moves) if alias in (None, move.alias)]

    async def change(self, app_name: str, change: Change) -> AppRecord:
        """Change an app's record.

        Raises:
            ProblemError: others changed it too often meanwhile.
            OutcomeUnknownError: it may have been changed.
        """
        unknown: OutcomeUnknownError | None = None
        attempted: AppRecord | None = None
        for _ in range(_TRIES):
            found = await self._catalogue.find_app(app_name)
            before = found.app if found is not None else None
            if before is not None and before == attempted:
                return before  # a try whose answer was lost has done it
            app = attempted = await change(before)
            if app == before:
                return app
            try:
                if before is not None and before.last_move not in (None, app.last_move):
                    await self._keep(app_name, before.last_move)
                if await self._catalogue.save_app(app, expect=found.version if found else 0):
                    return app
            except OutcomeUnknownError as error:
                unknown = error
        if unknown is not None:
            raise unknown
        raise ProblemError(
            "alias_conflict", f"others changed app {app_name!r} {_TRIES} times meanwhile: try again"
        )

    async def published(self, app: AppRecord) -> None:
        """Have the routes follow a changed record."""
        if app.production is not None:
            await self._catalogue.become_default(app.app)
        await self.reload()

    async def reload(self) -> None:
        """Have the routes follow the records; where the store does not answer, the next sweep
        does."""
        try:
            await self._reload_routes()
        except FluvialError:
            _LOG.warning("routes not reloaded", exc_info=True)

    async def _keep(self, app_name: str, move: AliasMove) -> None:
        """Put a move into the history before another one takes its place in the app's record."""
        for _ in range(_TRIES):
            found = await self._catalogue.history(app_name)
            history = found.history.with_move(move)
            if history == found.history:
                return
            if await self._catalogue.save_history(app_name, history, expect=found.version):
                return

    async def _move(
        self, app_name: str, change: Callable[[AppRecord], Awaitable[AppRecord]]
    ) -> AppRecord:
        async def existing(app: AppRecord | None) -> AppRecord:
            if app is None:
                raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
            return await change(app)

        app = await self.change(app_name, existing)
        move = app.last_move
        if move is not None:
            _LOG.info(
                "alias moved",
                extra={"app": app_name, "alias": move.alias, "deployment": move.after},
            )
        await self.published(app)
        return app


def check_alias_name(alias: str) -> None:
    """Raises:
    InvalidRequestError: an alias cannot be called so, or moves in another way.
    """
    if alias == PRODUCTION:
        raise InvalidRequestError(
            f"the alias {PRODUCTION!r} is moved by promote and rollback, and is never removed"
        )
    if not ALIAS_NAME.fullmatch(alias) or len(alias) > MAX_ALIAS_CHARACTERS:
        raise InvalidRequestError(
            f"an alias cannot be called {alias!r}: 1 to {MAX_ALIAS_CHARACTERS} of a-z, 0-9 and "
            "single '-', beginning with a letter, not ending with '-', not beginning with 'dpl-'"
        )


def aliases_of(app: AppRecord) -> dict[str, str]:
    """Return where each alias of an app stands, `production` first."""
    production = {} if app.production is None else {PRODUCTION: app.production}
    return production | dict(sorted(app.aliases.items()))


def promoted(app: AppRecord, deployment: DeploymentRecord, occasion: Occasion) -> AppRecord:
    """Return `app` with its alias on this deployment, whose crons are the active ones from now."""
    deployment_id = deployment.spec.deployment
    if app.production == deployment_id:
        return app
    check_stays(app, deployment_id)
    since = {(cron.name, cron.identity): cron.since_ms for cron in app.crons}
    crons = [(spec.name, spec.identity) for spec in deployment.functions.crons]
    return replace(
        app,
        production=deployment_id,
        previous=app.production,
        crons=tuple(ActiveCron(*cron, since.get(cron, occasion.at_ms)) for cron in crons),
        left=_left(app, app.production, deployment_id, occasion.at_ms),
        rollout=_rollout_after(app, deployment_id, occasion),
        last_move=_move(PRODUCTION, app.production, deployment_id, occasion),
    )


def _with_alias(app: AppRecord, alias: str, after: str | None, occasion: Occasion) -> AppRecord:
    before = app.aliases.get(alias)
    if before == after:
        return app
    if after is not None:
        check_stays(app, after)
    aliases = {name: target for name, target in app.aliases.items() if name != alias}
    if after is not None:
        aliases[alias] = after
    return replace(
        app,
        aliases=aliases,
        left=_left(app, before, after, occasion.at_ms),
        last_move=_move(alias, before, after, occasion),
    )


def _left(
    app: AppRecord, before: str | None, after: str | None, now_ms: int
) -> tuple[LeftDeployment, ...]:
    """Return where aliases stood until lately, once one of them has moved."""
    kept = [
        entry
        for entry in app.left
        if entry.deployment not in (before, after) and now_ms < entry.at_ms + MAX_PIN_MS
    ]
    if before is not None:
        kept.append(LeftDeployment(before, now_ms))
    return tuple(kept[-_MAX_LEFT:])


def _rollout_after(app: AppRecord, deployment_id: str, occasion: Occasion) -> RolloutRecord | None:
    """Return the rollout once production has moved: that ends it, one way or the other."""
    if app.rollout is None or not app.rollout.is_active:
        return app.rollout
    if app.rollout.deployment == deployment_id:
        return app.rollout.ended("completed", occasion.at_ms)
    reason = f"production was moved to {deployment_id} by {occasion.by}"
    return app.rollout.ended("aborted", occasion.at_ms, reason)


def check_stays(app: AppRecord, deployment_id: str) -> None:
    """Raises:
    DeploymentRetiringError: it is to be deleted.
    """
    if any(entry.deployment == deployment_id for entry in app.retiring):
        raise DeploymentRetiringError(deployment_id)


def _move(alias: str, before: str | None, after: str | None, occasion: Occasion) -> AliasMove:
    return AliasMove(
        alias=alias,
        before=before,
        after=after,
        at_ms=occasion.at_ms,
        by=occasion.by,
        reason=occasion.reason,
    )
