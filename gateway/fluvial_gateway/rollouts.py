"""Rollouts: moving production to a deployment in stages, and back where that fails.

A rollout stands in the app's record, so all gateways split clients alike, as soon as they have
read it (within `routes.ROLLOUT_SWEEP_SECONDS`). The old deployment stays production until the last
stage is over: its crons run, and runs that are started by name start there. Any gateway that sees
the new deployment fail aborts; the one that owns partition 0 begins the next stage when it is due.

Every change is a compare-and-set of the record that names the rollout and the stage it is meant
for, so an abort and a promotion at the same moment have one outcome, and none comes too late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from fluvial.errors import FluvialError, InvalidRequestError
from fluvial_gateway.aliases import Aliases, Occasion, check_stays, promoted
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.crons.alarm import Alarm
from fluvial_gateway.owned_tasks import OwnedTasks
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.rollout_counts import RolloutCounts
from fluvial_queue.records import AppRecord
from fluvial_queue.rollout_records import RolloutRecord

_LOG = logging.getLogger(__name__)

MAX_STAGES: Final = 20
_RETRY_SECONDS: Final = 5.0  # until a store that did not answer is asked again
_PLATFORM: Final = "the platform"


class Rollouts:
    """Starts rollouts, takes them on and ends them."""

    def __init__(
        self,
        catalogue: Catalogue,
        aliases: Aliases,
        *,
        is_owner: Callable[[], bool],
        alarm: Alarm,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._aliases = aliases
        self._is_owner = is_owner
        self._alarm = alarm
        self._clock = clock
        self._active: dict[str, RolloutRecord] = {}  # by app, as the routes have read last
        self._counts: dict[tuple[str, int], RolloutCounts] = {}  # by app, and when it was started
        self._aborts = OwnedTasks()
        self._is_closed = False

    async def start(
        self,
        app_name: str,
        deployment_id: str,
        stages: Sequence[int],
        *,
        every_ms: int | None,
        by: str,
    ) -> AppRecord:
        """Begin to move production to a deployment.

        Args:
            app_name: whose production.
            deployment_id: where to.
            stages: percent of clients, rising; after the last one production moves.
            every_ms: how long each stage lasts; None: until it is approved.
            by: who asks for it.

        Raises:
            ProblemError: there is no such app or deployment, or a rollout is under way.
            DeploymentRetiringError: the deployment is to be deleted.
            InvalidRequestError: these are no stages.
        """
        check_stages(stages)
        await self._catalogue.deployment_of(app_name, deployment_id)
        now_ms = await self._catalogue.now_ms()

        async def change(app: AppRecord) -> AppRecord:
            if app.production is None or app.production == deployment_id:
                raise ProblemError(
                    "rollout_impossible",
                    f"{deployment_id} is the production of {app_name!r} already"
                    if app.production
                    else f"{app_name!r} has no production to move from: promote a deployment",
                )
            rollout = RolloutRecord(
                deployment=deployment_id,
                stages=tuple(stages),
                every_ms=every_ms,
                started_ms=now_ms,
                since_ms=now_ms,
                by=by,
            )
            if app.rollout is not None and app.rollout.is_active and app.rollout != rollout:
                raise ProblemError(
                    "rollout_active",
                    f"{app_name!r} is on its way to {app.rollout.deployment}: abort that first",
                )
            check_stays(app, deployment_id)
            return replace(app, rollout=rollout)

        return await self._change(app_name, change)

    async def approve(self, app_name: str, *, by: str) -> AppRecord:
        """Begin the next stage now; behind the last one, move production.

        Raises:
            ProblemError: there is no such app, or no rollout is under way.
        """
        now_ms = await self._catalogue.now_ms()
        active = self._under_way(await self._catalogue.app(app_name))
        return await self._advance(app_name, active, now_ms, by)

    async def abort(self, app_name: str, *, by: str, reason: str = "") -> AppRecord:
        """Send all clients to the old deployment again.

        Raises:
            ProblemError: there is no such app, or no rollout is under way.
        """
        now_ms = await self._catalogue.now_ms()
        active = self._under_way(await self._catalogue.app(app_name))
        return await self._abort(app_name, active, now_ms, reason or f"aborted by {by}")

    def heard(self, apps: Sequence[AppRecord]) -> None:
        """The routes have read the records of all apps."""
        active = {
            app.app: app.rollout
            for app in apps
            if app.rollout is not None and app.rollout.is_active
        }
        if active != self._active:
            self._active = active
            keys = {(app, rollout.started_ms) for app, rollout in active.items()}
            self._counts = {key: each for key, each in self._counts.items() if key in keys}
            self._alarm.wake()

    def counts(self, app: str, rollout: RolloutRecord) -> RolloutCounts:
        """Return where this gateway counts the answers of a rollout's two sides."""
        key = (app, rollout.started_ms)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = RolloutCounts(
                self._clock, lambda reason: self._failing(app, rollout, reason)
            )
        return counts

    def wake(self) -> None:
        """Ownership has changed."""
        self._alarm.wake()

    async def run(self) -> None:
        """Begin stages when they are due, until closed."""
        while not self._is_closed:
            seconds: float | None = None
            if self._active and self._is_owner():
                try:
                    seconds = await self._round()
                except FluvialError as error:
                    _LOG.warning("rollouts not looked at", extra={"error": str(error)})
                    seconds = _RETRY_SECONDS
                except Exception:  # noqa: BLE001 - the boundary of a round: the gateway goes on
                    _LOG.exception("rollouts not looked at")
                    seconds = _RETRY_SECONDS
            await self._alarm.wait(seconds)

    async def close(self) -> None:
        """Begin nothing any more."""
        self._is_closed = True
        self._alarm.wake()
        await self._aborts.close()

    def _failing(self, app_name: str, rollout: RolloutRecord, reason: str) -> None:
        self._aborts.start(self._abort_failing(app_name, rollout, reason), f"abort {app_name}")

    async def _round(self) -> float | None:
        """Begin the stages that are due; return the seconds until the next one is."""
        now_ms = await self._catalogue.now_ms()
        for app_name, rollout in list(self._active.items()):
            if rollout.due_ms is not None and rollout.due_ms <= now_ms:
                try:
                    await self._advance(app_name, rollout, now_ms, _PLATFORM)
                except ProblemError as error:  # somebody was faster
                    _LOG.info("stage not begun", extra={"app": app_name, "reason": str(error)})
        dues = [each.due_ms for each in self._active.values() if each.due_ms is not None]
        # A stage that is due still is one that the routes have not read anew: they will soon.
        return max(_RETRY_SECONDS / 5, (min(dues) - now_ms) / 1000) if dues else None

    async def _advance(
        self, app_name: str, expected: RolloutRecord, now_ms: int, by: str
    ) -> AppRecord:
        deployment = await self._catalogue.deployment_of(app_name, expected.deployment)
        last = len(expected.stages) - 1

        async def change(app: AppRecord) -> AppRecord:
            rollout = self._expected(app, expected)
            if rollout.stage == last:
                return promoted(app, deployment, Occasion(now_ms, by, "rollout"))
            return replace(app, rollout=replace(rollout, stage=rollout.stage + 1, since_ms=now_ms))

        return await self._change(app_name, change)

    async def _abort(
        self, app_name: str, expected: RolloutRecord, now_ms: int, reason: str
    ) -> AppRecord:
        async def change(app: AppRecord) -> AppRecord:
            rollout = self._under_way(app)
            if rollout.started_ms != expected.started_ms:
                raise ProblemError("rollout_not_active", "that rollout is over")
            return replace(app, rollout=rollout.ended("aborted", now_ms, reason))

        app = await self._change(app_name, change)
        _LOG.warning(
            "rollout aborted",
            extra={"app": app_name, "deployment": expected.deployment, "reason": reason},
        )
        return app

    async def _abort_failing(self, app_name: str, rollout: RolloutRecord, reason: str) -> None:
        try:
            now_ms = await self._catalogue.now_ms()
            await self._abort(app_name, rollout, now_ms, reason)
        except ProblemError as error:
            _LOG.info("nothing to abort", extra={"app": app_name, "reason": str(error)})
        except FluvialError as error:
            # Clients of the new deployment go on to fail until somebody aborts; they are told why.
            _LOG.error("a failing rollout goes on", extra={"app": app_name, "error": str(error)})

    async def _change(
        self, app_name: str, change: Callable[[AppRecord], Awaitable[AppRecord]]
    ) -> AppRecord:
        async def existing(app: AppRecord | None) -> AppRecord:
            if app is None:
                raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
            return await change(app)

        app = await self._aliases.change(app_name, existing)
        await self._aliases.reload()
        return app

    def _under_way(self, app: AppRecord) -> RolloutRecord:
        if app.rollout is None or not app.rollout.is_active:
            raise ProblemError("rollout_not_active", f"{app.app!r} has no rollout under way")
        return app.rollout

    def _expected(self, app: AppRecord, expected: RolloutRecord) -> RolloutRecord:
        """Return the app's rollout, if it is at the stage at which it is expected."""
        rollout = self._under_way(app)
        if rollout != expected:
            raise ProblemError(
                "rollout_not_active", "the rollout has gone on meanwhile: look again"
            )
        return rollout


def check_stages(stages: Sequence[int]) -> None:
    """Raises:
    InvalidRequestError: a rollout cannot have these stages.
    """
    rises = all(one < two for one, two in pairwise(stages))
    if not stages or len(stages) > MAX_STAGES or not rises or not 0 < stages[0] <= stages[-1] < 100:
        raise InvalidRequestError(
            f"stages are 1 to {MAX_STAGES} rising percentages from 1 to 99, got {list(stages)}"
        )
