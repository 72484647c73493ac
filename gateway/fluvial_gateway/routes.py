"""Routes: the host table, kept equal to what the records say.

This gateway reloads after its own changes. What another gateway changed is seen by a sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from fluvial.errors import FluvialError
from fluvial_gateway.aliases import aliases_of
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.hosts import HostTable, RolloutRoute, Routes
from fluvial_gateway.keeping import pin_ms, pinnable
from fluvial_gateway.rollout_counts import RolloutCounts
from fluvial_queue.records import AppRecord, DeploymentRecord
from fluvial_queue.rollout_records import RolloutRecord

_LOG = logging.getLogger(__name__)
# How late another gateway's promote is seen here. Three small reads each time.
SWEEP_SECONDS: Final = 30.0
ROLLOUT_SWEEP_SECONDS: Final = 5.0  # the same while an app is on its way to another deployment


class Rollouts(Protocol):
    """What the routes need of rollouts."""

    def heard(self, apps: Sequence[AppRecord], /) -> None:
        """All apps were read."""
        ...

    def counts(self, app: str, rollout: RolloutRecord, /) -> RolloutCounts:
        """Return where this gateway counts the answers of a rollout's two sides."""
        ...


class RouteTable:
    """Fills a `HostTable` from the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        hosts: HostTable,
        domain: str,
        *,
        keep: Callable[[Mapping[str, int]], None],
        rollouts: Rollouts | None = None,
    ) -> None:
        """Args:
        catalogue: where the records are.
        hosts: what is filled.
        domain: below which apps have their hosts.
        keep: told how many instances of which deployments are to be there without work.
        rollouts: None: there are none.
        """
        self._keep = keep
        self._catalogue = catalogue
        self._hosts = hosts
        self._domain = domain
        self._rollouts = rollouts
        self._has_rollouts = False
        self._reloading = asyncio.Lock()

    async def reload(self) -> None:
        """Read all records and replace the table in one step.

        Raises:
            FluvialError: the store did not answer; the table is as before.
        """
        # One at a time, so that an older reading never replaces a newer one.
        async with self._reloading:
            apps = await self._catalogue.apps()
            deployments = await self._catalogue.deployments()
            known = {deployment.spec.deployment for deployment in deployments}
            now_ms = await self._catalogue.now_ms()
            rolling = [app for app in apps if app.rollout is not None and app.rollout.is_active]
            retiring = {entry.deployment for app in apps for entry in app.retiring}
            routes = Routes(
                domain=self._domain,
                production={app.app: app.production for app in apps if app.production is not None},
                aliases={app.app: app.aliases for app in apps if app.aliases},
                deployments={
                    d.spec.deployment: d.spec.app
                    for d in deployments
                    if d.spec.deployment not in retiring
                },
                hosts=await self._catalogue.hosts(),
                default_app=await self._catalogue.default_app(),
                pins={app.app: _pins(app, now_ms) & known for app in apps if pin_ms(app)},
                pin_cookies={
                    app.app: pin_ms(app) // 1000
                    for app in apps
                    if app.sets_pin_cookie and pin_ms(app)
                },
                rollouts=self._routes_of(rolling),
            )
            self._hosts.replace(routes)
            self._keep(_least_instances(routes, deployments))
            self._has_rollouts = bool(rolling)
            if self._rollouts is not None:
                self._rollouts.heard(apps)

    async def sweep(self, stop: asyncio.Event, *, seconds: float = SWEEP_SECONDS) -> None:
        """Reload again and again until `stop` is set."""
        while True:
            pause = min(seconds, ROLLOUT_SWEEP_SECONDS) if self._has_rollouts else seconds
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                try:
                    await self.reload()
                except FluvialError as error:
                    _LOG.warning("routes not reloaded", extra={"error": str(error)})
            else:
                return

    def _routes_of(self, rolling: Sequence[AppRecord]) -> dict[str, RolloutRoute]:
        routes: dict[str, RolloutRoute] = {}
        for app in rolling:
            rollout = app.rollout
            if self._rollouts is None or rollout is None:
                continue
            salt = f"{app.app} {rollout.started_ms} ".encode()
            counts = self._rollouts.counts(app.app, rollout)
            routes[app.app] = RolloutRoute(rollout.deployment, rollout.percent, salt, counts)
        return routes


def _pins(app: AppRecord, now_ms: int) -> set[str]:
    """Return where an app's clients may ask to go on."""
    standing = set(aliases_of(app).values())
    if app.rollout is not None and app.rollout.is_active:
        standing.add(app.rollout.deployment)
    return standing | pinnable(app, now_ms)


def _least_instances(routes: Routes, deployments: Iterable[DeploymentRecord]) -> dict[str, int]:
    """Return `min_instances` of what is its app's production: no other deployment is kept warm."""
    production = set(routes.production.values())
    return {
        each.spec.deployment: each.spec.instance.min_instances
        for each in deployments
        if each.spec.instance.min_instances and each.spec.deployment in production
    }
