"""All instances of this machine: found or started for gateways, watched, and reported when dead."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fluvial.errors import FluvialError
from fluvial.ids import new_id
from fluvial.manifest import DeploymentSpec
from fluvial.unprivileged import AppIdentities, Identities
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.births import Birth
from fluvial_invoker.forkers import UnfitError
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instances import Instance
from fluvial_invoker.key_files import KeyringError
from fluvial_invoker.keyring import Keyring, LoadedKeys, NoKmsError
from fluvial_invoker.kms import KmsError
from fluvial_invoker.snapshot_processes import Snapshot
from fluvial_invoker.snapshots import Snapshots
from fluvial_invoker.starter import Started, Starter, find_conflicts
from fluvial_invoker.tiers import Tiers

TIER_WARM: Final = "warm"
TIER_SNAPSHOT: Final = "snapshot"
_IMPORT_FAILED: Final = "import_failed"
_SNAPSHOT_FAILED: Final = "snapshot_failed"
_KEYS_CHANGED: Final = "keys_changed"  # why instances were ended; not their code's doing

_log = logging.getLogger(__name__)


class RefusedError(FluvialError):
    """A gateway's request cannot be granted; `reason` is the code that it is told."""

    code = "refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """What a gateway needs to dial an instance."""

    instance: str
    address: str
    credential: bytes
    tier: str
    phases_ms: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are on disk."""

    home: Path
    run_dir: Path
    runtime_path: Path

    def bundle(self, digest: str) -> Path:
        return self.home / "bundles" / digest

    def layer(self, key: str) -> Path:
        return self.home / "layers" / key

    def user_folder(self, app: str, uid: int) -> Path:
        """Return the folder that is the app's HOME, made if need be; nobody else can read it."""
        users = self.home / "users"
        users.mkdir(mode=0o711, exist_ok=True)
        users.chmod(0o711)
        folder = users / app
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, uid, uid, follow_symlinks=False)
        return folder

    def socket(self, instance: str) -> Path:
        return self.run_dir / "i" / f"{instance}.sock"


class Fleet:
    """The instances, by id and by deployment."""

    def __init__(
        self,
        places: Places,
        keyring: Keyring,
        *,
        identities: Identities,
        grace_seconds: float,
        snapshot_bytes: int,
        on_dead: Callable[[str, str], None],
        on_change: Callable[[], None],
        logs: AppLogs,
    ) -> None:
        self._places = places
        self._keyring = keyring
        self._tiers = Tiers(identities.for_inspection)
        self._identities = AppIdentities(identities)
        self._grace_seconds = grace_seconds
        self._on_dead = on_dead
        self._on_change = on_change
        self._logs = logs
        self._starter = Starter(places.runtime_path)
        self._snapshots = Snapshots(
            self._starter,
            certify=self._certify,
            keys=self._load_keys,
            open_snapshot=functools.partial(Snapshot, logs=self._logs),
            max_bytes=snapshot_bytes,
        )
        self._instances: dict[str, Instance] = {}
        self._renewing: set[str] = set()  # instances that are about to be told their keys
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._instances)

    async def acquire(
        self, spec: DeploymentSpec, exclude: Collection[str], *, alone: bool = False
    ) -> Acquired:
        """Return a living instance of a deployment that the gateway does not have yet; `alone`: a
        fresh one that nobody else is handed. Of both kinds there are at most `max_instances`.

        Raises:
            RefusedError: there is none, and none can be started.
        """
        if self._is_closing:
            raise RefusedError("shutting_down", "the invoker is shutting down")
        siblings = [
            instance
            for instance in self._instances.values()
            if instance.spec.deployment == spec.deployment and instance.is_alone == alone
            if alone or instance.accepts
        ]
        for instance in siblings:
            if instance.id not in exclude and not alone:
                await asyncio.shield(instance.born)
                return self._acquired(instance, TIER_WARM, {})
        if len(siblings) >= spec.instance.max_instances:
            raise RefusedError(
                "capacity", f"{len(siblings)} instances run, max_instances does not allow more"
            )
        instance = await self._start(spec, alone=alone)
        return self._acquired(instance, instance.tier, instance.phases_ms)

    def kill(self, instance_id: str, grace_seconds: float) -> None:
        """End an instance; does nothing when there is no such instance."""
        instance = self._instances.get(instance_id)
        if instance is not None:
            instance.terminate(grace_seconds)

    def send_keys(self, app: str) -> None:
        """Tell an app's instances its keys as they are now."""
        for instance in self._of_app(app):
            instance.send_keys(self._keyring.loaded(app))

    async def end_all(self, app: str) -> int:
        """End all instances of an app that exist now, after the grace; return how many."""
        self._snapshots.drop_app(app)
        ending = self._of_app(app)
        for instance in ending:
            instance.terminate(self._grace_seconds, _KEYS_CHANGED)
        for instance in ending:
            await instance.over.wait()
        return len(ending)

    def survey(self) -> tuple[list[dict[str, Any]], ...]:
        """Return what SURVEYED says: instances, zygotes, snapshots."""
        instances = [each.survey() for each in self._instances.values()]
        return instances, self._starter.zygotes.survey(), self._snapshots.survey()

    async def close(self) -> None:
        """End everything: ask, wait for the grace, kill, then end snapshots and zygotes."""
        self._is_closing = True
        instances = list(self._instances.values())
        for instance in instances:
            instance.terminate(self._grace_seconds)
        for instance in instances:
            await instance.over.wait()
        await self._snapshots.close()
        await self._starter.close()
        await asyncio.gather(*self._tasks)

    def _of_app(self, app: str) -> list[Instance]:
        return [each for each in self._instances.values() if each.spec.app == app]

    def _keys_wanted(self, instance: Instance) -> None:
        if instance.id not in self._renewing:  # else it is told soon
            self._renewing.add(instance.id)
            self._own(self._renew_keys(instance))

    async def _renew_keys(self, instance: Instance) -> None:
        app = instance.spec.app
        try:
            await self._keyring.load(app)
        except (FluvialError, OSError) as error:
            _log.warning("keys not read again", extra={"app": app, "reason": str(error)})
        else:
            instance.send_keys(self._keyring.loaded(app))
        finally:
            self._renewing.discard(instance.id)

    def _acquired(self, instance: Instance, tier: str, phases_ms: dict[str, float]) -> Acquired:
        return Acquired(
            instance=instance.id,
            address=instance.address,
            credential=instance.new_credential(),
            tier=tier,
            phases_ms=phases_ms,
        )

    # Starting

    async def _start(self, spec: DeploymentSpec, *, alone: bool) -> Instance:
        instance_id = new_id("ins")
        certificate = self._certify(spec, instance_id)
        uid = certificate.uid
        birth = Birth.prepare(self._places.socket(instance_id))
        instance = Instance(
            instance_id,
            spec,
            birth,
            self._logs,
            on_wanted=self._keys_wanted,
            on_ready=self._is_ready,
            is_alone=alone,
        )
        self._instances[instance_id] = instance
        self._on_change()
        try:
            if spec.instance.isolation == "jail":
                await self._check_jail(certificate)
            if uid is not None:
                birth.give_to(uid)
            # Only now: who ends the app's instances after a change of its keys ends this one too.
            await self._keyring.load(spec.app)
            await instance.open(certificate, lambda: self._keyring.loaded(spec.app))
            await self._create_process(instance, birth, certificate)
        except BaseException as error:
            refusal = _refusal(error)
            self._own(self._not_started(instance, refusal))
            if isinstance(error, Exception):
                raise refusal from error
            raise
        finally:
            birth.close_theirs()
        return instance

    async def _check_jail(self, certificate: BirthCertificate) -> None:
        layer = certificate.layer_path
        obstacle = await self._tiers.obstacle(certificate.deployment.instance.network)
        if layer and (different := find_conflicts(layer)):
            names = ", ".join(different)
            obstacle = f"the layer has other versions of what the platform lends: {names}"
        if obstacle is not None:
            raise RefusedError("isolation_unavailable", f"isolation 'jail': {obstacle}")

    async def _not_started(self, instance: Instance, refusal: RefusedError) -> None:
        instance.fail(f"start_failed: {refusal}")
        if not instance.born.done():
            instance.born.set_exception(refusal)
            instance.born.exception()  # seen: maybe nobody waits
        await self._end(instance, None)

    async def _create_process(
        self, instance: Instance, birth: Birth, certificate: BirthCertificate
    ) -> None:
        started = await self._fork_snapshot(instance.spec.deployment, birth)
        if started is None:
            started = await self._starter.start(certificate, birth.fds)
        instance.started(started.pid, started.tier, started.phases_ms)
        extra = {
            "instance": instance.id,
            "deployment": instance.spec.deployment,
            "tier": started.tier,
        }
        _log.info("instance started", extra=extra)
        self._starter.watch(started.pid, lambda code: self._own(self._end(instance, code)))

    async def _fork_snapshot(self, deployment: str, birth: Birth) -> Started | None:
        snapshot = self._snapshots.find(deployment)
        if snapshot is None:
            return None
        try:
            return await self._starter.fork(snapshot, TIER_SNAPSHOT, birth.fds)
        except UnfitError as error:
            self._snapshots.refuse(deployment, str(error))
            return None

    def _is_ready(self, instance: Instance) -> None:
        if instance.tier != TIER_SNAPSHOT:
            self._snapshots.want(instance.spec)

    async def _load_keys(self, app: str) -> LoadedKeys:
        await self._keyring.load(app)
        return self._keyring.loaded(app)

    def _certify(self, spec: DeploymentSpec, instance: str) -> BirthCertificate:
        bundle, layer = self._folders(spec)
        uid = self._identities.of(spec.app)
        return BirthCertificate(
            instance=instance,
            deployment=spec,
            bundle_path=str(bundle),
            layer_path=layer,
            runtime_path=str(self._places.runtime_path),
            grace_seconds=self._grace_seconds,
            uid=uid,
            user_folder="" if uid is None else str(self._places.user_folder(spec.app, uid)),
        )

    def _folders(self, spec: DeploymentSpec) -> tuple[Path, str]:
        bundle = self._places.bundle(spec.bundle)
        layer = self._places.layer(spec.layer) if spec.layer else None
        for folder in (bundle, layer):
            if folder is not None and not folder.is_dir():
                raise RefusedError("bundle_missing", f"{folder.parent.name}/{folder.name} is gone")
        return bundle, str(layer or "")

    async def _end(self, instance: Instance, exit_code: int | None) -> None:
        reason = await instance.ended(exit_code)
        if instance.tier == TIER_SNAPSHOT and reason.startswith(_IMPORT_FAILED):
            # Perhaps without the snapshot it does become ready: not a failure of the deployment.
            self._snapshots.blame(instance.spec.deployment, reason)
            reason = f"{_SNAPSHOT_FAILED}: {reason}"
        del self._instances[instance.id]
        extra = {"instance": instance.id, "reason": reason.partition("\n")[0]}
        _log.info("instance ended", extra=extra)
        self._on_dead(instance.id, reason)
        self._on_change()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refusal(error: BaseException) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, KeyringError | KmsError | NoKmsError):
        return RefusedError(error.code, str(error))
    return RefusedError("start_failed", f"{type(error).__name__}: {error}")
