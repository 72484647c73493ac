"""A build: unpack, read the manifest, install, compile, inspect. Nothing half done stays behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fluvial.bundle import file_digest, unpack
from fluvial.errors import BundleError, InvalidRequestError, ManifestError
from fluvial.file_functions import FOLDER
from fluvial.manifest import InstanceSettings, Manifest, load_manifest
from fluvial.runtime_path import runtime_folder
from fluvial.unprivileged import choose_identities
from fluvial_deploy.builder.bytecode import compile_tree
from fluvial_deploy.builder.children import LogLine
from fluvial_deploy.builder.config import Config
from fluvial_deploy.builder.functions import Functions, inspect_bundle
from fluvial_deploy.builder.imports import ImportPath, Imports
from fluvial_deploy.builder.layers import LayerInstaller
from fluvial_deploy.builder.refusals import DiskFullError
from fluvial_deploy.tiers import find_tiers

_DIGEST_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What the gateway asks for."""

    archive: Path
    digest: str
    name: str | None
    variables: tuple[str, ...] = ()  # names of the app's variables whose values are sealed

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> BuildRequest:
        """Return the request in a BUILD frame.

        Raises:
            InvalidRequestError: a field is missing or of the wrong kind.
        """
        archive, digest, name = plain.get("archive"), plain.get("digest"), plain.get("name")
        if not isinstance(archive, str) or not Path(archive).is_absolute():
            raise InvalidRequestError(f"archive must be an absolute path, got {archive!r}")
        if not isinstance(digest, str) or not _is_digest(digest):
            raise InvalidRequestError(f"digest must be 64 hexadecimal digits, got {digest!r}")
        if name is not None and not isinstance(name, str):
            raise InvalidRequestError(f"name must be text, got {name!r}")
        variables: Any = plain.get("variables", [])
        if not isinstance(variables, list):
            raise InvalidRequestError("variables must be a list of names")
        return cls(
            archive=Path(archive),
            digest=digest,
            name=name or None,
            variables=tuple(map(str, cast("list[object]", variables))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What was built: everything that a deployment's record needs."""

    manifest: Manifest
    bundle: str
    layer: str
    functions: Functions

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a BUILT frame."""
        manifest = self.manifest.to_dict()
        del manifest["crons"]  # complete among the functions; a frame has room for them once
        return {
            "manifest": manifest,
            "bundle": self.bundle,
            "layer": self.layer,
            "functions": self.functions.to_dict(),
        }


class Builds:
    """Builds bundles below one home, one at a time."""

    def __init__(self, config: Config) -> None:
        self._home = config.home
        self._defaults = InstanceSettings(idle_seconds=config.default_idle_seconds)
        self._installer = LayerInstaller(config.home / "layers", config.install_environment)
        self._imports = Imports(keeps_one_ready=config.is_dev)
        self._compiles = not config.is_dev
        self._import_environment = config.import_environment
        self._one_at_a_time = asyncio.Lock()

    async def close(self) -> None:
        """End what waits for the next build."""
        await self._imports.close()

    def sweep(self) -> None:
        """Remove what a killed builder left half done; call it before the first build."""
        for kind in ("bundles", "layers"):
            for rest in (self._home / kind).glob(".*"):
                shutil.rmtree(rest, ignore_errors=True)

    async def build(self, request: BuildRequest, log: LogLine) -> BuildReport:
        """Return the report of one build.

        Raises:
            FluvialError: the build was refused; the class carries the stable code.
        """
        if self._one_at_a_time.locked():
            await log("waiting for another build")
        async with self._one_at_a_time:
            try:
                return await self._build(request, log)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise DiskFullError from error
                raise

    async def _build(self, request: BuildRequest, log: LogLine) -> BuildReport:
        bundle = self._home / "bundles" / request.digest
        is_new = not bundle.is_dir()
        if is_new:
            await self._unpack(request, bundle, log)
        try:
            return await self._finish(request, bundle, log)
        except BaseException:
            if is_new:
                shutil.rmtree(bundle, ignore_errors=True)
            raise

    async def _unpack(self, request: BuildRequest, bundle: Path, log: LogLine) -> None:
        await asyncio.to_thread(_check_digest, request)
        bundle.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{request.digest[:16]}.", dir=bundle.parent))
        try:
            made = work / "bundle"
            unpacked = await asyncio.to_thread(unpack, request.archive, made)
            await log(f"unpacked {unpacked.files} files, {unpacked.bytes} bytes")
            if self._compiles:
                await compile_tree(made, bundle, log)
            made.rename(bundle)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    async def _finish(self, request: BuildRequest, bundle: Path, log: LogLine) -> BuildReport:
        manifest = load_manifest(bundle, name=request.name, defaults=self._defaults)
        uid = choose_identities(os.environ, self._home).for_inspection
        if manifest.instance.isolation == "jail":
            await asyncio.to_thread(_check_jail, manifest.instance.network, uid)
        layer = await self._installer.install(bundle, log, source_builds=manifest.source_builds)
        path = ImportPath(
            bundle=bundle,
            layer=self._home / "layers" / layer if layer else None,
            runtime=runtime_folder(self._home),
        )
        functions = await inspect_bundle(
            self._imports,
            path,
            manifest,
            log,
            sealed_variables=request.variables,
            known_variables=self._known_variables(manifest.name),
            uid=uid,
        )
        await log(_summary(functions))
        return BuildReport(
            manifest=manifest, bundle=request.digest, layer=layer, functions=functions
        )

    def _known_variables(self, app: str) -> dict[str, str]:
        """Return values that the operator lets imports at deploy see; `fluvial dev` alone does."""
        if self._import_environment is None or not self._import_environment.is_file():
            return {}
        known: Any = json.loads(self._import_environment.read_text("utf-8"))
        return dict(known["variables"]) if known["app"] == app else {}


def _check_jail(network: str, uid: int | None) -> None:
    obstacle = find_tiers(uid).obstacle(network)
    if obstacle is not None:
        raise ManifestError("instance isolation", f"'jail' cannot be had here: {obstacle}")


def _check_digest(request: BuildRequest) -> None:
    try:
        digest = file_digest(request.archive)
    except FileNotFoundError as error:
        raise BundleError("the archive is not there (any more): upload it again") from error
    if digest != request.digest:
        raise BundleError("the archive does not have the digest that was announced")


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST_CHARACTERS and not set(text) - set("0123456789abcdef")


def _summary(functions: Functions) -> str:
    parts = [f"{functions.entrypoint} ({functions.interface})"] if functions.entrypoint else []
    if functions.files:
        parts.append(f"{len(functions.files)} function(s) below /{FOLDER}")
    if functions.workflows:
        parts.append(f"{len(functions.workflows)} workflow(s)")
    if functions.steps:
        parts.append(f"{len(functions.steps)} step(s)")
    if functions.crons:
        parts.append(f"{len(functions.crons)} cron(s)")
    return f"found {', '.join(parts)}"
