"""The catalogue: apps, deployments and hosts, read from and written to the store's records.

A deployment never changes once it is written, so reads of it are cached until a reading of all (the
routes make one every 30 s) misses it; an app record holds the alias and is read anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fluvial_gateway.problems import ProblemError
from fluvial_queue.alias_records import AliasHistory
from fluvial_queue.contract import Record, RecordKind
from fluvial_queue.records import (
    DEFAULT_APP_SETTING,
    AppRecord,
    DeploymentRecord,
    HostRecord,
)
from fluvial_queue.removal_records import RemovedDeployment

_CACHED_DEPLOYMENTS: Final = 512


@dataclass(frozen=True, slots=True)
class Versioned:
    """An app as it was read, with the version that a compare-and-set must name."""

    app: AppRecord
    version: int


@dataclass(frozen=True, slots=True)
class VersionedHistory:
    """An app's history as it was read, likewise; version 0: there is none yet."""

    history: AliasHistory
    version: int


class Records(Protocol):
    """The part of a store that holds small documents."""

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None: ...

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None: ...

    async def list_records(self, kind: RecordKind) -> list[Record]: ...

    async def delete_record(self, kind: RecordKind, record_id: str) -> bool: ...

    async def now_ms(self) -> int: ...


class Catalogue:
    """Reads and writes apps and deployments."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._deployments: OrderedDict[str, DeploymentRecord] = OrderedDict()

    async def now_ms(self) -> int:
        return await self._records.now_ms()

    async def find_app(self, name: str) -> Versioned | None:
        record = await self._records.get_record("app", name)
        return (
            None if record is None else Versioned(AppRecord.from_dict(record.value), record.version)
        )

    async def app(self, name: str) -> AppRecord:
        """Raises:
        ProblemError: there is no such app.
        """
        found = await self.find_app(name)
        if found is None:
            raise ProblemError("app_not_found", f"no app {name!r} was ever deployed")
        return found.app

    async def apps(self) -> list[AppRecord]:
        """Return all apps, by name."""
        records = await self._records.list_records("app")
        return sorted(
            (AppRecord.from_dict(record.value) for record in records), key=lambda app: app.app
        )

    async def save_app(self, app: AppRecord, *, expect: int) -> bool:
        """Write an app if its record's version is `expect` (0: there is none)."""
        value = app.to_dict()
        return await self._records.put_record("app", app.app, value, expect=expect) is not None

    async def history(self, app: str) -> VersionedHistory:
        """Return how the app's aliases moved, without the newest move."""
        record = await self._records.get_record("history", app)
        if record is None:
            return VersionedHistory(AliasHistory(), 0)
        return VersionedHistory(AliasHistory.from_dict(record.value), record.version)

    async def save_history(self, app: str, history: AliasHistory, *, expect: int) -> bool:
        """Write an app's history if its version is `expect`."""
        value = history.to_dict()
        return await self._records.put_record("history", app, value, expect=expect) is not None

    async def deployment_of(self, app: str, deployment_id: str) -> DeploymentRecord:
        """Raises:
        ProblemError: the app has no such deployment.
        """
        deployment = await self.deployment(deployment_id)
        if deployment.spec.app != app:
            raise ProblemError(
                "deployment_not_found", f"app {app!r} has no deployment {deployment_id!r}"
            )
        return deployment

    async def deployment(self, deployment_id: str) -> DeploymentRecord:
        """Raises:
        ProblemError: there is no such deployment.
        """
        cached = self._deployments.get(deployment_id)
        if cached is not None:
            self._deployments.move_to_end(deployment_id)
            return cached
        record = await self._records.get_record("deployment", deployment_id)
        if record is None:
            raise ProblemError("deployment_not_found", f"no deployment {deployment_id!r}")
        deployment = DeploymentRecord.from_dict(record.value)
        self._remember(deployment)
        return deployment

    async def deployments(self, app: str | None = None) -> list[DeploymentRecord]:
        """Return deployments, newest first."""
        records = await self._records.list_records("deployment")
        found = [DeploymentRecord.from_dict(record.value) for record in records]
        self._forget_all_but({deployment.spec.deployment for deployment in found})
        if app is not None:
            found = [deployment for deployment in found if deployment.spec.app == app]
        # Ids sort by time of creation.
        return sorted(found, key=lambda deployment: deployment.spec.deployment, reverse=True)

    async def deployments_by_app(self) -> dict[str, list[DeploymentRecord]]:
        """Return all deployments by app, newest first."""
        by_app: dict[str, list[DeploymentRecord]] = {}
        for deployment in await self.deployments():
            by_app.setdefault(deployment.spec.app, []).append(deployment)
        return by_app

    async def find_deployment(self, deployment_id: str) -> DeploymentRecord | None:
        try:
            return await self.deployment(deployment_id)
        except ProblemError:
            return None

    async def reader_of(self, app: str, deployment_id: str) -> str:
        """Return the deployment that reads the data of a run of this one: itself, or the app's
        production where it was deleted."""
        if await self.find_deployment(deployment_id) is not None:
            return deployment_id
        found = await self.find_app(app)
        production = None if found is None else found.app.production
        return deployment_id if production is None else production

    async def add_deployment(self, deployment: DeploymentRecord) -> None:
        deployment_id = deployment.spec.deployment
        await self._records.put_record("deployment", deployment_id, deployment.to_dict(), expect=0)

    async def remove_deployment(self, deployment_id: str) -> None:
        """Delete a deployment's record: only where nothing leads to it."""
        self._deployments.pop(deployment_id, None)
        await self._records.delete_record("deployment", deployment_id)

    async def replace_deployment(self, deployment_id: str, removed: RemovedDeployment) -> None:
        """Delete a deployment, and leave behind what is still to be cleaned up."""
        await self._records.put_record("removed", deployment_id, removed.to_dict())
        await self.remove_deployment(deployment_id)

    async def removed(self) -> dict[str, RemovedDeployment]:
        """Return what is still to be cleaned up, by deployment."""
        records = await self._records.list_records("removed")
        return {record.id: RemovedDeployment.from_dict(record.value) for record in records}

    async def forget_removed(self, deployment_id: str) -> None:
        """A deleted deployment has left nothing."""
        await self._records.delete_record("removed", deployment_id)

    async def hosts(self) -> dict[str, str]:
        """Return custom host → app."""
        records = await self._records.list_records("host")
        return {record.id: HostRecord.from_dict(record.value).app for record in records}

    async def add_host(self, host: str, app: str) -> bool:
        """Give a custom host to an app; return whether it is the app's now."""
        value = HostRecord(app=app).to_dict()
        if await self._records.put_record("host", host, value, expect=0) is not None:
            return True
        record = await self._records.get_record("host", host)
        return record is not None and HostRecord.from_dict(record.value).app == app

    async def remove_host(self, host: str) -> None:
        """Take a custom host from its app."""
        await self._records.delete_record("host", host)

    async def default_app(self) -> str | None:
        """Return the app that answers for the plain domain."""
        record = await self._records.get_record("setting", DEFAULT_APP_SETTING)
        return None if record is None else str(record.value["app"])

    async def become_default(self, app: str) -> None:
        """Make `app` answer for the plain domain, if no app does yet."""
        await self._records.put_record("setting", DEFAULT_APP_SETTING, {"app": app}, expect=0)

    def _forget_all_but(self, existing: set[str]) -> None:
        """Forget what another gateway has deleted."""
        for deployment_id in self._deployments.keys() - existing:
            del self._deployments[deployment_id]

    def _remember(self, deployment: DeploymentRecord) -> None:
        self._deployments[deployment.spec.deployment] = deployment
        while len(self._deployments) > _CACHED_DEPLOYMENTS:
            self._deployments.popitem(last=False)
