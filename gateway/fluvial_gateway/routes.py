"""Routes: the host table, kept equal to what the records say.

This gateway reloads after its own changes. What another gateway changed is seen by a sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from fluvial.errors import FluvialError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.hosts import HostTable, Routes
from fluvial_queue.records import DeploymentRecord

_LOG = logging.getLogger(__name__)
# How late another gateway's promote is seen here. Three small reads each time.
SWEEP_SECONDS: Final = 30.0


class RouteTable:
    """Fills a `HostTable` from the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        hosts: HostTable,
        domain: str,
        *,
        keep: Callable[[Mapping[str, int]], None],
    ) -> None:
        """Args:
        catalogue: where the records are.
        hosts: what is filled.
        domain: below which apps have their hosts.
        keep: told how many instances of which deployments are to be there without work.
        """
        self._keep = keep
        self._catalogue = catalogue
        self._hosts = hosts
        self._domain = domain
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
            )
            self._hosts.replace(routes)
            self._keep(_least_instances(routes, deployments))

    async def sweep(self, stop: asyncio.Event, *, seconds: float = SWEEP_SECONDS) -> None:
        """Reload again and again until `stop` is set."""
        while True:
            try:
                await asyncio.wait_for(stop.wait(), seconds)
            except TimeoutError:
                try:
                    await self.reload()
                except FluvialError as error:
                    _LOG.warning("routes not reloaded", extra={"error": str(error)})
            else:
                return


def _least_instances(routes: Routes, deployments: Iterable[DeploymentRecord]) -> dict[str, int]:
    """Return `min_instances` of what is its app's production: no other deployment is kept warm."""
    production = set(routes.production.values())
    return {
        each.spec.deployment: each.spec.instance.min_instances
        for each in deployments
        if each.spec.instance.min_instances and each.spec.deployment in production
    }
