"""Aliases: which deployment is an app's `production`, and how that moves.

An alias is part of the app's record and moves by compare-and-set, so two moves at once happen one
after the other. A move whose answer was lost is recognised by its effect and not repeated: a
rollback that is done twice would be none. The crons of the production deployment stand in the same
record, so they move with the alias.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from fluvial.errors import FluvialError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.problems import ProblemError
from fluvial_queue.contract import OutcomeUnknownError
from fluvial_queue.records import ActiveCron, AppRecord, DeploymentRecord

_LOG = logging.getLogger(__name__)

# Others who move the same alias at the same moment win at most so often in a row.
_TRIES: Final = 5

Change = Callable[[AppRecord | None], Awaitable[AppRecord]]
"""Gets an app's record as it is (None: there is none); returns it as it shall be."""


class Aliases:
    """Changes app records, and has the routes follow."""

    def __init__(self, catalogue: Catalogue, reload_routes: Callable[[], Awaitable[None]]) -> None:
        self._catalogue = catalogue
        self._reload_routes = reload_routes

    async def promote(self, app_name: str, deployment_id: str) -> AppRecord:
        """Move the alias `production` to a deployment of the app.

        Raises:
            ProblemError: there is no such app or deployment.
        """
        deployment = await self._catalogue.deployment(deployment_id)
        if deployment.spec.app != app_name:
            raise ProblemError(
                "deployment_not_found", f"app {app_name!r} has no deployment {deployment_id!r}"
            )
        now_ms = await self._catalogue.now_ms()

        async def change(app: AppRecord) -> AppRecord:
            return promoted(app, deployment, now_ms)

        return await self._move(app_name, change)

    async def rollback(self, app_name: str) -> AppRecord:
        """Move the alias `production` back to where it was before the last move.

        Raises:
            ProblemError: there is no such app, or nothing to go back to.
        """
        now_ms = await self._catalogue.now_ms()

        async def change(app: AppRecord) -> AppRecord:
            if app.previous is None:
                raise ProblemError(
                    "no_previous_deployment", f"app {app_name!r} has had no other production"
                )
            return promoted(app, await self._catalogue.deployment(app.previous), now_ms)

        return await self._move(app_name, change)

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
        try:
            await self._reload_routes()
        except FluvialError:
            # The alias has moved; the routes follow with the next sweep.
            _LOG.warning("routes not reloaded", exc_info=True)

    async def _move(
        self, app_name: str, change: Callable[[AppRecord], Awaitable[AppRecord]]
    ) -> AppRecord:
        async def existing(app: AppRecord | None) -> AppRecord:
            if app is None:
                raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
            return await change(app)

        app = await self.change(app_name, existing)
        _LOG.info("alias moved", extra={"app": app_name, "deployment": app.production})
        await self.published(app)
        return app


def promoted(app: AppRecord, deployment: DeploymentRecord, now_ms: int) -> AppRecord:
    """Return `app` with its alias on this deployment, whose crons are the active ones from now."""
    deployment_id = deployment.spec.deployment
    if app.production == deployment_id:
        return app
    since = {(cron.name, cron.identity): cron.since_ms for cron in app.crons}
    crons = [(spec.name, spec.identity) for spec in deployment.functions.crons]
    return replace(
        app,
        production=deployment_id,
        previous=app.production,
        crons=tuple(ActiveCron(*cron, since.get(cron, now_ms)) for cron in crons),
    )
