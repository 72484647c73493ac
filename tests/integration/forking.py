"""Forks and reruns over an application in this process, whose app has two deployments."""

from __future__ import annotations

from typing import Any

from fluvial.codec import encode
from fluvial.encryption import public_key_of
from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.registry import registry
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.fingerprints import Fingerprints
from fluvial_gateway.forks import ForkPlan, Forks
from fluvial_gateway.hooks import Hooks
from fluvial_gateway.reruns import RerunPlan, Reruns
from fluvial_gateway.resealer import Resealer
from fluvial_gateway.runs import Runs
from fluvial_queue.records import AppRecord, DeploymentFunctions, DeploymentRecord
from tests.integration.in_process import APP, ROOTS, Application

OLD, NEW = "dpl", "dpl_new"  # NEW is production


class Forking:
    """Makes forks and reruns."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._catalogue = Catalogue(app.store)
        self._runs = Runs(app.store, self._catalogue, app.dispatcher, Fingerprints(b"k" * 32))
        self._hooks = Hooks(app.store, self._catalogue, self._runs)
        resealer = Resealer(app.instances)
        self.forks = Forks(self._runs, app.store, resealer)
        self._reruns = Reruns(self._runs, self._catalogue, resealer)

    @classmethod
    async def of(cls, app: Application) -> Forking:
        """Return it with the app and its deployments registered."""
        forking = cls(app)
        key = public_key_of(ROOTS["k1"], APP)
        record = AppRecord(app=APP, production=NEW, key_id="k1", public_key=key)
        await forking._catalogue.save_app(record, expect=0)
        functions = DeploymentFunctions(workflows=tuple(registry.workflows))
        for name in (OLD, NEW):
            spec = DeploymentSpec(
                deployment=name,
                app=APP,
                bundle="",
                layer="",
                entrypoint=None,
                workflows=(),
                instance=InstanceSettings(),
            )
            await forking._catalogue.add_deployment(
                DeploymentRecord(spec=spec, created_ms=0, functions=functions)
            )
        return forking

    async def fork(
        self, origin: str, step: int | str | None, *, key: str = "", deployment: str | None = None
    ) -> str:
        """Fork a run; return the fork's id."""
        plan = ForkPlan(step=step, deployment=deployment)
        record = await self._app.record(origin)
        return (await self.forks.fork(record, plan, by="somebody", key=key)).run_id

    async def rerun(self, origin: str, *, key: str = "", **plan: Any) -> str:
        """Run a run again; return the new one's id."""
        record = await self._app.record(origin)
        return (await self._reruns.rerun(record, RerunPlan(**plan), key=key)).run_id

    async def resume(self, token: str, value: Any) -> str:
        """Hand a value to the hook that has the token now; return whose hook that was."""
        record = await self._hooks.find(APP, token)
        sealed = self._app.keys.for_run(record.run_id).seal(encode(value), "hook", token)
        await self._hooks.resume_sealed(record, token, sealed, "once")
        return record.run_id
