"""Deployments: from an archive to a registered deployment, and to a moved alias if wanted.

Invariants:

* Order: build, archive, keys, deployment record, app record. The app record's compare-and-set is
  the one moment in which a deploy happens; what fails before it leaves no record.
* Registering is not cancelled by a client that goes away: it ends, one way or the other.
* A deploy that would change nothing about production makes no record.
* A deployment has a copy of the app's environment as it was when it was registered, for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from fluvial.errors import FluvialError
from fluvial.ids import new_id
from fluvial.manifest import APP_NAME, DeploymentSpec
from fluvial.variables import check_environment_size, variable_bytes
from fluvial_gateway.aliases import Aliases, Occasion, promoted
from fluvial_gateway.builder_client import BuildReport, BuildRequest
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.environments import Environments
from fluvial_gateway.invoker_client import RefusedError
from fluvial_gateway.keyrings import KeyringHolder, KeyringState, with_keyring
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.uploads import Upload, Uploads
from fluvial_queue.contract import OutcomeUnknownError
from fluvial_queue.records import AppRecord, DeploymentRecord

_LOG = logging.getLogger(__name__)

# The builder builds one at a time; these wait for it with an open connection each.
_CONCURRENT: Final = 16
# `dpl-….<domain>` is a deployment's own host, so no app may be called like one.
_RESERVED_PREFIX: Final = "dpl-"
_ALIAS_SEPARATOR: Final = "--"  # `<alias>--<app>.<domain>`


class Builder(Protocol):
    """Builds archives."""

    def build(self, request: BuildRequest) -> AsyncGenerator[str | BuildReport, None]:
        """Yield log texts, then the report."""
        ...


@dataclass(frozen=True, slots=True)
class Deployed:
    """The end of a deploy that went well."""

    deployment: DeploymentRecord
    app: AppRecord
    created: bool


class Deployments:
    """Makes deployments."""

    def __init__(
        self,
        catalogue: Catalogue,
        aliases: Aliases,
        uploads: Uploads,
        *,
        builder: Builder,
        keys: KeyringHolder,
        environments: Environments,
    ) -> None:
        self._catalogue = catalogue
        self._aliases = aliases
        self._uploads = uploads
        self._builder = builder
        self._keys = keys
        self._environments = environments
        self._under_way = 0
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._registering: set[asyncio.Task[Deployed]] = set()

    async def deploy(
        self, upload: Upload, *, name: str | None, promote: bool, by: str
    ) -> AsyncGenerator[str | Deployed, None]:
        """Build and register an upload for `by`; yield the build's log, then the result.

        Raises:
            FluvialError: nothing was changed.
        """
        report: BuildReport | None = None
        try:
            async with self._slot():
                request = await self._request(upload, name)
                async with aclosing(self._builder.build(request)) as answers:
                    async for answer in answers:
                        if isinstance(answer, BuildReport):
                            report = answer
                        else:
                            yield answer
                if report is None:
                    raise ProblemError("build_failed", "the builder ended without a report")
                _check_name(report.app)
                self._uploads.keep(upload)
                registering = self._register(report, upload.digest, by if promote else None)
                deployed = await self._uncancelled(registering, report.app)
        finally:
            self._uploads.discard(upload)
        yield deployed

    async def redeploy(self, app_name: str, *, by: str, promote: bool) -> Deployed:
        """Register what is production once more, with the app's environment as it is now.

        Raises:
            ProblemError: there is no such app, or it has no production.
        """
        app = await self._catalogue.app(app_name)
        if app.production is None:
            raise ProblemError(
                "nothing_deployed", f"app {app_name!r} has no production: deploy or promote first"
            )
        production = await self._catalogue.deployment(app.production)
        candidate = replace(production, created_ms=await self._catalogue.now_ms())
        return await self._uncancelled(self._settle(candidate, by if promote else None), app_name)

    async def close(self) -> None:
        """Wait for registrations under way."""
        await asyncio.gather(*self._registering, return_exceptions=True)

    @asynccontextmanager
    async def quiet(self) -> AsyncGenerator[bool, None]:
        """Let no deploy begin meanwhile; False: one is under way, or somebody else has quiet."""
        if self._under_way or self._registering or not self._may_begin.is_set():
            yield False
            return
        self._may_begin.clear()
        try:
            yield True
        finally:
            self._may_begin.set()

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None, None]:
        while not self._may_begin.is_set():
            await self._may_begin.wait()
        if self._under_way >= _CONCURRENT:
            raise ProblemError("too_many_waits", f"{_CONCURRENT} deploys are under way already")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _request(self, upload: Upload, name: str | None) -> BuildRequest:
        # Without a name, the app is known only when the archive was unpacked.
        variables = (await self._environments.of(name)).variables if name else ()
        return BuildRequest(
            archive=upload.path, digest=upload.digest, name=name, variables=tuple(variables)
        )

    async def _uncancelled(
        self, registering: Coroutine[Any, Any, Deployed], app_name: str
    ) -> Deployed:
        task = asyncio.get_running_loop().create_task(registering, name=f"register {app_name}")
        self._registering.add(task)
        task.add_done_callback(self._registering.discard)
        return await asyncio.shield(task)

    async def _register(
        self, report: BuildReport, source_digest: str, promoter: str | None
    ) -> Deployed:
        candidate = DeploymentRecord(
            spec=_spec(report),
            created_ms=await self._catalogue.now_ms(),
            functions=report.functions,
            source_digest=source_digest,
            retention_ms=report.retention_ms,
        )
        return await self._settle(candidate, promoter)

    async def _settle(self, candidate: DeploymentRecord, promoter: str | None) -> Deployed:
        """Register a deployment with the environment of now, unless production is the same."""
        app_name = candidate.spec.app
        keyring = await self._keyring(app_name)
        deployment = replace(candidate, spec=await self._with_environment(candidate.spec))
        current = await self._current(app_name)
        if current is not None and _is_same(current[1], deployment):
            return Deployed(current[1], current[0], created=False)
        app = await self._add(deployment, keyring, promoter)
        _LOG.info(
            "deployed",
            extra={
                "app": app_name,
                "deployment": deployment.spec.deployment,
                "promoted": promoter is not None,
            },
        )
        await self._aliases.published(app)
        return Deployed(deployment, app, created=True)

    async def _with_environment(self, spec: DeploymentSpec) -> DeploymentSpec:
        """Return a spec of its own, with the app's environment of now."""
        environment = await self._environments.of(spec.app)
        plain = {k: v for k, v in spec.environment.items() if k not in environment.variables}
        check_environment_size(
            len(plain) + len(environment.variables),
            sum(variable_bytes(name, value) for name, value in plain.items())
            + environment.size_bytes,
        )
        return replace(spec, deployment=new_id("dpl"), sealed_environment=environment.sealed)

    async def _keyring(self, app: str) -> KeyringState:
        try:
            return await self._keys.keyring(app)
        except RefusedError as error:
            raise ProblemError("unavailable", f"no key for app {app!r}: {error}") from error

    async def _current(self, app_name: str) -> tuple[AppRecord, DeploymentRecord] | None:
        found = await self._catalogue.find_app(app_name)
        if found is None or found.app.production is None:
            return None
        return found.app, await self._catalogue.deployment(found.app.production)

    async def _add(
        self, deployment: DeploymentRecord, keyring: KeyringState, promoter: str | None
    ) -> AppRecord:
        await self._catalogue.add_deployment(deployment)

        async def change(app: AppRecord | None) -> AppRecord:
            return _app_after(app, deployment, keyring, promoter)

        try:
            return await self._aliases.change(deployment.spec.app, change)
        except OutcomeUnknownError:
            raise  # the alias may have moved to it: an unused record is the lesser harm
        except FluvialError:
            await self._undo(deployment.spec.deployment)
            raise

    async def _undo(self, deployment_id: str) -> None:
        try:
            await self._catalogue.remove_deployment(deployment_id)
        except FluvialError:
            _LOG.warning("an unused deployment is left", extra={"deployment": deployment_id})


def _check_name(app: str) -> None:
    if not APP_NAME.fullmatch(app) or app.startswith(_RESERVED_PREFIX):
        raise ProblemError(
            "manifest_invalid",
            f"an app cannot be called {app!r}: 1 to 40 of a-z, 0-9 and '-', beginning with a "
            f"letter, not ending with '-', not beginning with {_RESERVED_PREFIX!r}",
        )


def _spec(report: BuildReport) -> DeploymentSpec:
    return DeploymentSpec(
        deployment="",  # named when it is registered
        app=report.app,
        bundle=report.bundle,
        layer=report.layer,
        entrypoint=report.functions.entrypoint,
        interface=report.functions.interface,
        files=report.functions.files,
        workflows=report.modules,
        instance=report.instance,
        environment=report.environment,
    )


def _is_same(one: DeploymentRecord, other: DeploymentRecord) -> bool:
    specs = replace(one.spec, deployment="") == replace(other.spec, deployment="")
    return specs and one.functions == other.functions


def _app_after(
    app: AppRecord | None,
    deployment: DeploymentRecord,
    keyring: KeyringState,
    promoter: str | None,
) -> AppRecord:
    if app is None:
        if _ALIAS_SEPARATOR in deployment.spec.app:
            raise ProblemError(
                "manifest_invalid",
                f"a new app cannot be called {deployment.spec.app!r}: {_ALIAS_SEPARATOR!r} parts "
                "an alias from its app in the names of hosts",
            )
        app = AppRecord(app=deployment.spec.app, created_ms=deployment.created_ms)
    app = with_keyring(app, keyring)  # it may have a newer key by now
    if promoter is None:
        return app
    return promoted(app, deployment, Occasion(deployment.created_ms, promoter, "deploy"))
