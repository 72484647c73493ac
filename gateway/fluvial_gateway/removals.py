"""Removals: deleting deployments that nothing needs, in two phases and then some.

1. Retire. The app's record names the deployment as retiring, by a compare-and-set that refuses
   where an alias stands on it; aliases refuse to move to it from then on. Its host is no longer
   routed, and the store lets no run start on it in any partition.
2. Look. Every run of every partition is looked at. Where one needs the deployment, it is reinstated
   and the request refused, or it stays retiring and goes when the last one has ended. Nothing
   forces a live run off its deployment.
3. Close. Each partition closes unless it has let something in since: see `retirement_contract`.
4. Delete. A `removed` record takes the deployment's place, and then the app's record forgets it.
5. Clean. Its instances end; its archive, bundle and layer go where no other deployment has them;
   then the `removed` record.

Each step may be done twice, so whoever finds one half done goes on: the janitor does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from fluvial_gateway.aliases import Aliases, aliases_of
from fluvial_gateway.bundle_files import BundleFiles, Parts
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.invoker_client import Survey
from fluvial_gateway.problems import ProblemError
from fluvial_queue.records import AppRecord, DeploymentRecord
from fluvial_queue.removal_records import RemovedDeployment, RetiringDeployment
from fluvial_queue.retirement_contract import DeploymentUse, RetirementStore

_LOG = logging.getLogger(__name__)

_GRACE_MS: Final = 10_000  # of instances of deployments that are gone


class Fleet(Protocol):
    """The instances, as the invoker knows them."""

    async def survey(self) -> Survey: ...

    def kill(self, instance: str, grace_ms: int) -> None: ...


class Deploys(Protocol):
    """Deploys under way."""

    def quiet(self) -> AbstractAsyncContextManager[bool]:
        """Let no deploy begin meanwhile; False: one is under way."""
        ...


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of a request to delete a deployment."""

    state: Literal["deleted", "retiring"]
    use: DeploymentUse


class Removals:
    """Deletes deployments."""

    def __init__(
        self,
        catalogue: Catalogue,
        aliases: Aliases,
        store: RetirementStore,
        *,
        files: BundleFiles,
        fleet: Fleet,
        deploys: Deploys,
    ) -> None:
        self._catalogue = catalogue
        self._aliases = aliases
        self._store = store
        self._files = files
        self._fleet = fleet
        self._deploys = deploys

    async def remove(
        self, deployment_id: str, *, spares_ended: bool = True, when_unused: bool = False
    ) -> Removal:
        """Delete a deployment that no live run needs.

        Args:
            deployment_id: which.
            spares_ended: refuse also for ended runs which their retention still keeps.
            when_unused: do not refuse for runs; delete it when the last of them is gone.

        Raises:
            ProblemError: there is none, an alias stands on it, or runs need it.
        """
        deployment = await self._catalogue.deployment(deployment_id)
        before = await self._retire(deployment, spares_ended)
        await self._aliases.reload()
        use = (await self._close([deployment], {deployment_id: spares_ended}))[deployment_id]
        if use is None:
            await self._delete(deployment)
            await self._aliases.reload()
            return Removal("deleted", DeploymentUse())
        if when_unused:
            return Removal("retiring", use)
        if before is None:
            await self.reinstate(deployment_id)
        raise _in_use(deployment, use, spares_ended)

    async def reinstate(self, deployment_id: str) -> None:
        """Keep a deployment that was to go when nothing needs it.

        Raises:
            ProblemError: there is no such deployment (any more).
        """
        deployment = await self._catalogue.deployment(deployment_id)
        await self._store.reinstate_deployment(deployment_id)
        await self._forget(deployment.spec.app, deployment_id)
        await self._aliases.reload()

    async def remove_unused(
        self, deployments: Collection[DeploymentRecord], *, at_most: int
    ) -> int:
        """Delete those that no run needs, ended ones included; return how many that were. The
        others are as before."""
        ids = [deployment.spec.deployment for deployment in deployments]
        uses = await self._store.deployment_uses(ids)
        unused = [
            deployment
            for deployment in deployments
            if not _needs(uses[deployment.spec.deployment], spares_ended=True)
        ]
        retired: list[DeploymentRecord] = []
        for deployment in unused[:at_most]:
            try:
                await self._retire(deployment, spares_ended=True)
            except ProblemError as error:  # an alias has moved to it meanwhile
                _LOG.info("deployment kept", extra={"reason": str(error)})
            else:
                retired.append(deployment)
        return await self._finish(retired, {}, reinstates=True)

    async def go_on(self, apps: Collection[AppRecord]) -> int:
        """Delete those retiring deployments that nothing needs any more; return how many stay."""
        retiring = [(app, entry) for app in apps for entry in app.retiring]
        found: list[DeploymentRecord] = []
        for app, entry in retiring:
            deployment = await self._catalogue.find_deployment(entry.deployment)
            if deployment is None:  # it was deleted by one who did not come to the end of it
                await self._forget(app.app, entry.deployment)
            else:
                found.append(deployment)
        spares = {entry.deployment: entry.spares_ended for _, entry in retiring}
        return len(retiring) - await self._finish(found, spares, reinstates=False)

    async def clean(self) -> int:
        """Do away with what deleted deployments have left; return how many still leave something:
        instances that are ending, or files while a deploy is under way."""
        removed = await self._catalogue.removed()
        if not removed:
            return 0
        ending = await self._end_instances(set(removed))
        async with self._deploys.quiet() as is_quiet:
            if not is_quiet:
                return len(removed)
            others = [_parts(each) for each in await self._catalogue.deployments()]
            for deployment_id, record in removed.items():
                if deployment_id not in ending:
                    await self._clean(deployment_id, record, others)
        return len(ending)

    async def _retire(
        self, deployment: DeploymentRecord, spares_ended: bool
    ) -> RetiringDeployment | None:
        """Name a deployment as retiring; return how it was before."""
        deployment_id, app_name = deployment.spec.deployment, deployment.spec.app
        now_ms = await self._catalogue.now_ms()
        before: RetiringDeployment | None = None

        async def change(app: AppRecord | None) -> AppRecord:
            nonlocal before
            if app is None:
                raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
            standing = [name for name, target in aliases_of(app).items() if target == deployment_id]
            if app.rollout is not None and app.rollout.is_active:
                standing += ["rollout"] * (app.rollout.deployment == deployment_id)
            if standing:
                raise ProblemError(
                    "deployment_in_use",
                    f"{deployment_id} is where {', '.join(standing)} of {app_name} stands: move it "
                    "or remove it first",
                    extra={"aliases": standing},
                )
            others = tuple(e for e in app.retiring if e.deployment != deployment_id)
            before = next((e for e in app.retiring if e not in others), None)
            since_ms = now_ms if before is None else before.since_ms
            entry = RetiringDeployment(deployment_id, since_ms, spares_ended)
            return replace(app, retiring=(*others, entry))

        await self._aliases.change(app_name, change)
        return before

    async def _finish(
        self,
        deployments: Collection[DeploymentRecord],
        spares_ended: Mapping[str, bool],
        *,
        reinstates: bool,
    ) -> int:
        """Delete those retired deployments that nothing needs; return how many that were."""
        if not deployments:
            return 0
        await self._aliases.reload()
        uses = await self._close(deployments, spares_ended)
        deleted = 0
        for deployment in deployments:
            if uses[deployment.spec.deployment] is None:
                await self._delete(deployment)
                deleted += 1
            elif reinstates:
                await self.reinstate(deployment.spec.deployment)
        await self._aliases.reload()
        return deleted

    async def _close(
        self, deployments: Collection[DeploymentRecord], spares_ended: Mapping[str, bool]
    ) -> dict[str, DeploymentUse | None]:
        """Close those that nothing needs; return who needs the others, by deployment."""
        ids = [deployment.spec.deployment for deployment in deployments]
        counts = {each: await self._store.retire_deployment(each) for each in ids}
        found: dict[str, DeploymentUse | None] = {}
        for each, use in (await self._store.deployment_uses(ids)).items():
            if _needs(use, spares_ended=spares_ended.get(each, True)):
                found[each] = use
            elif await self._store.close_deployment(each, counts[each]):
                found[each] = None
            else:
                # A run has come in meanwhile. What was closed too early is opened again.
                await self._store.reinstate_deployment(each)
                await self._store.retire_deployment(each)
                found[each] = use
        return found

    async def _delete(self, deployment: DeploymentRecord) -> None:
        spec = deployment.spec
        removed = RemovedDeployment(
            app=spec.app,
            bundle=spec.bundle,
            layer=spec.layer,
            source_digest=deployment.source_digest,
        )
        await self._catalogue.replace_deployment(spec.deployment, removed)
        await self._forget(spec.app, spec.deployment)
        _LOG.info("deployment deleted", extra={"app": spec.app, "deployment": spec.deployment})

    async def _forget(self, app_name: str, deployment_id: str) -> None:
        """Let an app's record name a deployment as retiring no more."""

        async def change(app: AppRecord | None) -> AppRecord:
            if app is None:
                raise ProblemError("app_not_found", f"no app {app_name!r} was ever deployed")
            retiring = tuple(e for e in app.retiring if e.deployment != deployment_id)
            return replace(app, retiring=retiring)

        await self._aliases.change(app_name, change)

    async def _end_instances(self, deployments: Collection[str]) -> set[str]:
        """End the instances of deployments that are gone; return the deployments that have any."""
        survey = await self._fleet.survey()
        ending = [each for each in survey.instances if each.get("deployment") in deployments]
        for each in ending:
            self._fleet.kill(str(each["instance"]), _GRACE_MS)
        return {str(each["deployment"]) for each in ending}

    async def _clean(
        self, deployment_id: str, removed: RemovedDeployment, others: Collection[Parts]
    ) -> None:
        parts = Parts(removed.source_digest, removed.bundle, removed.layer)
        try:
            gone = await asyncio.to_thread(self._files.remove, parts, others)
        except OSError as error:
            _LOG.warning(
                "files of a deleted deployment stay for now",
                extra={"deployment": deployment_id, "reason": str(error)},
            )
            return
        await self._catalogue.forget_removed(deployment_id)
        _LOG.info("deployment cleaned up", extra={"deployment": deployment_id, "files": gone})


def _needs(use: DeploymentUse, *, spares_ended: bool) -> bool:
    return bool(use.live_count or (spares_ended and use.ended_count))


def _parts(deployment: DeploymentRecord) -> Parts:
    return Parts(deployment.source_digest, deployment.spec.bundle, deployment.spec.layer)


def _in_use(deployment: DeploymentRecord, use: DeploymentUse, spares_ended: bool) -> ProblemError:
    deployment_id, app = deployment.spec.deployment, deployment.spec.app
    look = f"`fluvial runs ls --app {app} --deployment {deployment_id}`"
    extra = {"runs": list(use.live), "live_runs": use.live_count, "ended_runs": use.ended_count}
    if use.live_count:
        why = (
            f"{use.live_count} live runs need {deployment_id} (see {look}): wait for their end, "
            "end them, or delete it with --when-unused, which waits for them"
        )
    elif use.ended_count and spares_ended:
        why = (
            f"{use.ended_count} ended runs of {deployment_id} are kept by their retention (see "
            f"{look}): --force deletes it all the same, and they are read by the app's production"
        )
    else:
        why = f"a run has just started on {deployment_id}: try again"
    return ProblemError("deployment_in_use", why, extra=extra)
