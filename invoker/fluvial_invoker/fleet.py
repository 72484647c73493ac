"""All instances of this machine: found or started for gateways, watched, and reported when dead."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
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
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instances import Instance
from fluvial_invoker.key_files import KeyringError
from fluvial_invoker.keyring import Keyring, NoKmsError
from fluvial_invoker.kms import KmsError
from fluvial_invoker.layers import conflicts
from fluvial_invoker.processes import Process
from fluvial_invoker.zygotes import UnfitError, Zygotes

TIER_WARM: Final = "warm"
TIER_ZYGOTE: Final = "zygote"
TIER_SPAWN: Final = "spawn"
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
        on_dead: Callable[[str, str], None],
        on_change: Callable[[], None],
        logs: AppLogs,
    ) -> None:
        self._places = places
        self._keyring = keyring
        self._identities = AppIdentities(identities)
        self._grace_seconds = grace_seconds
        self._on_dead = on_dead
        self._on_change = on_change
        self._logs = logs
        self._zygotes = Zygotes(places.runtime_path, self._child_ended)
        self._instances: dict[str, Instance] = {}
        self._by_pid: dict[int, Instance] = {}
        self._early_ends: dict[int, int] = {}
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
        ending = self._of_app(app)
        for instance in ending:
            instance.terminate(self._grace_seconds, _KEYS_CHANGED)
        for instance in ending:
            await instance.over.wait()
        return len(ending)

    def survey(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return what SURVEYED says: instances and zygotes."""
        return [each.survey() for each in self._instances.values()], self._zygotes.survey()

    async def close(self) -> None:
        """End everything: ask, wait for the grace, kill, then end the zygotes."""
        self._is_closing = True
        instances = list(self._instances.values())
        for instance in instances:
            instance.terminate(self._grace_seconds)
        for instance in instances:
            await instance.over.wait()
        self._zygotes.close()
        await self._zygotes.wait_until_closed()
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
        bundle, layer = self._folders(spec)
        uid = self._identities.of(spec.app)
        user_folder = "" if uid is None else str(self._places.user_folder(spec.app, uid))
        instance_id = new_id("ins")
        birth = Birth.prepare(self._places.socket(instance_id))
        instance = Instance(
            instance_id,
            spec,
            birth,
            self._logs,
            on_wanted=self._keys_wanted,
            is_alone=alone,
        )
        self._instances[instance_id] = instance
        self._on_change()
        certificate = BirthCertificate(
            instance=instance_id,
            deployment=spec,
            bundle_path=str(bundle),
            layer_path=layer,
            runtime_path=str(self._places.runtime_path),
            grace_seconds=self._grace_seconds,
            uid=uid,
            user_folder=user_folder,
        )
        try:
            if uid is not None:
                birth.give_to(uid)
            # Only now: who ends the app's instances after a change of its keys ends this one too.
            await self._keyring.load(spec.app)
            await instance.open(certificate, lambda: self._keyring.loaded(spec.app))
            await self._create_process(instance, birth, layer, uid)
        except BaseException as error:
            refusal = _refusal(error)
            self._own(self._not_started(instance, refusal))
            if isinstance(error, Exception):
                raise refusal from error
            raise
        finally:
            birth.close_theirs()
        return instance

    async def _not_started(self, instance: Instance, refusal: RefusedError) -> None:
        instance.fail(f"start_failed: {refusal}")
        if not instance.born.done():
            instance.born.set_exception(refusal)
            instance.born.exception()  # seen: maybe nobody waits
        await self._end(instance, None)

    async def _create_process(
        self, instance: Instance, birth: Birth, layer: str, uid: int | None
    ) -> None:
        spec = instance.spec
        different = _conflicts(layer) if layer else ()
        if different:
            _log.info(
                "the layer conflicts with the platform's packages: no fork",
                extra={"deployment": spec.deployment, "conflicts": different},
            )
        else:
            try:
                await self._fork(instance, birth, layer, uid)
            except UnfitError as error:
                _log.warning("no fork", extra={"layer": spec.layer, "reason": str(error)})
            else:
                return
        self._spawn(instance, birth, layer, uid)

    async def _fork(self, instance: Instance, birth: Birth, layer: str, uid: int | None) -> None:
        began = time.monotonic()
        zygote = self._zygotes.of(instance.spec.layer, layer, uid)
        await zygote.wait_until_ready()
        ready = time.monotonic()
        pid = await zygote.fork(birth.fds)
        phases = {"zygote": _ms(began, ready), "fork": _ms(ready, time.monotonic())}
        self._started(instance, pid, TIER_ZYGOTE, phases)

    def _spawn(self, instance: Instance, birth: Birth, layer: str, uid: int | None) -> None:
        began = time.monotonic()
        arguments = ("spawned", str(self._places.runtime_path), layer)
        fds = birth.fds
        process: Process = Process(
            (*arguments, *map(str, fds), str(os.getpid())),
            fds=fds,
            on_exit=lambda exit_code: self._child_ended(process.pid, exit_code),
            uid=uid,
        )
        self._started(instance, process.pid, TIER_SPAWN, {"spawn": _ms(began, time.monotonic())})

    def _started(
        self, instance: Instance, pid: int, tier: str, phases_ms: dict[str, float]
    ) -> None:
        self._by_pid[pid] = instance
        instance.started(pid, tier, phases_ms)
        _log.info(
            "instance started",
            extra={"instance": instance.id, "deployment": instance.spec.deployment, "tier": tier},
        )
        if pid in self._early_ends:
            self._child_ended(pid, self._early_ends.pop(pid))

    def _folders(self, spec: DeploymentSpec) -> tuple[Path, str]:
        if spec.instance.isolation != "process":
            raise RefusedError(
                "not_supported", f"isolation {spec.instance.isolation!r} is not supported yet"
            )
        bundle = self._places.bundle(spec.bundle)
        layer = self._places.layer(spec.layer) if spec.layer else None
        for folder in (bundle, layer):
            if folder is not None and not folder.is_dir():
                raise RefusedError("bundle_missing", f"{folder.parent.name}/{folder.name} is gone")
        return bundle, str(layer or "")

    def _child_ended(self, pid: int, exit_code: int) -> None:
        instance = self._by_pid.pop(pid, None)
        if instance is None:
            # Its zygote told of the end in the same breath as of the fork: see `_started`.
            self._early_ends[pid] = exit_code
        else:
            self._own(self._end(instance, exit_code))

    async def _end(self, instance: Instance, exit_code: int | None) -> None:
        reason = await instance.ended(exit_code)
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
    if isinstance(error, KeyringError | KmsError | NoKmsError):
        return RefusedError(error.code, str(error))
    return RefusedError("start_failed", f"{type(error).__name__}: {error}")


def _ms(began: float, ended: float) -> float:
    return round((ended - began) * 1000, 2)


@functools.lru_cache(maxsize=256)  # a layer's folder never changes
def _conflicts(layer: str) -> tuple[str, ...]:
    return conflicts(Path(layer))
