"""What a bundle can execute, found by importing it once in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

from fluvial.crons import MAX_CRONS, CronSpec
from fluvial.errors import CronError, FluvialError, NoEntrypointError
from fluvial.interfaces import INTERFACES, Interface
from fluvial.manifest import Manifest
from fluvial_deploy.builder.children import ChildTimeoutError, LogLine, printable
from fluvial_deploy.builder.imports import MAX_ANSWER_BYTES, ImportJob, ImportPath, Imports
from fluvial_deploy.builder.refusals import CronInvalidError, ImportFailedError

IMPORT_SECONDS: Final = 60.0
_MAX_NAMES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """What a deployment can execute."""

    entrypoint: str | None
    interface: Interface | None  # how the entrypoint is called
    workflows: tuple[str, ...]
    steps: tuple[str, ...]
    crons: tuple[CronSpec, ...] = ()
    files: tuple[str, ...] = ()  # entrypoints below `api/`, each with a path of its own

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack."""
        return {
            "entrypoint": self.entrypoint,
            "interface": self.interface,
            "workflows": list(self.workflows),
            "steps": list(self.steps),
            "crons": [cron.to_dict() for cron in self.crons],
            "files": list(self.files),
        }


async def inspect_bundle(
    imports: Imports,
    path: ImportPath,
    manifest: Manifest,
    log: LogLine,
    *,
    sealed_variables: Sequence[str] = (),
    known_variables: Mapping[str, str] | None = None,
    timeout_seconds: float = IMPORT_SECONDS,
    uid: int | None = None,
) -> Functions:
    """Return what the bundle registers when its modules are imported.

    It sees the manifest's variables, and placeholders in place of `sealed_variables`, whose values
    no build may know but for `known_variables`. Code that stumbles over a placeholder may well go
    on without the variable: what cannot be imported with them is tried without.

    Raises:
        NoEntrypointError: the entrypoint is missing or not callable.
        ImportFailedError: the bundle's code raised, ended its process, or took too long.
        CronInvalidError: a cron does not fit its workflow.
    """
    known = known_variables or {}
    unknown = [name for name in sealed_variables if name not in known]
    inspection = _Inspection(imports, path, manifest, log, known, timeout_seconds, uid)
    try:
        return await inspection.run(unknown)
    except ImportFailedError:
        if unknown:
            with suppress(ImportFailedError):
                return await inspection.run(())
        raise  # the first failure, which says what placeholders are


@dataclass(frozen=True, slots=True)
class _Inspection:
    """One bundle that is to be imported, each time in a process of its own."""

    imports: Imports
    path: ImportPath
    manifest: Manifest
    log: LogLine
    known: Mapping[str, str]
    timeout_seconds: float
    uid: int | None

    async def run(self, sealed_variables: Sequence[str]) -> Functions:
        try:
            imported = await self.imports.run(self._job(_placeholders(sealed_variables)))
        except ChildTimeoutError as error:
            raise ImportFailedError(
                f"importing the bundle {error}: move slow work out of the import"
            ) from error
        return _functions(imported.answer, imported.status, self.manifest)

    def _job(self, placeholders: dict[str, str]) -> ImportJob:
        own = {"FLUVIAL": "1", "FLUVIAL_APP": self.manifest.name, "FLUVIAL_BUILD": "1"}
        return ImportJob(
            path=self.path,
            request=self._request(placeholders),
            environment={**self.manifest.environment, **self.known, **placeholders, **own},
            log=self.log,
            timeout_seconds=self.timeout_seconds,
            uid=self.uid,
        )

    def _request(self, placeholders: dict[str, str]) -> dict[str, Any]:
        path, manifest = self.path, self.manifest
        return {
            "bundle": str(path.bundle),
            "layer": str(path.layer) if path.layer else "",
            "runtime": str(path.runtime),
            "entrypoint": manifest.app,
            "interface": manifest.interface,
            "files": manifest.files,
            "workflows": manifest.workflows,
            "crons": [(cron.workflow, asdict(cron.cron)) for cron in manifest.crons],
            "app": manifest.name,
            "placeholders": sorted(placeholders),
        }


def _placeholders(names: Sequence[str]) -> dict[str, str]:
    return {name: f"<{name} is known when the app runs>" for name in names}


def _functions(answer: bytes, status: int, manifest: Manifest) -> Functions:
    """Return what an answer says; it comes out of a stranger's process and is not trusted."""
    try:
        found: Any = json.loads(answer) if len(answer) <= MAX_ANSWER_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ImportFailedError(f"importing the bundle ended its process (status {status})")
    fields = cast("dict[str, Any]", found)
    if "code" in fields:
        raise _refusal(str(fields["code"]), printable(str(fields.get("message", ""))))
    interface = fields.get("interface")
    return Functions(
        entrypoint=manifest.app,
        interface=interface if interface in INTERFACES else None,
        workflows=_names(fields.get("workflows")),
        steps=_names(fields.get("steps")),
        crons=_crons(fields.get("crons")),
        files=manifest.files,
    )


def _refusal(code: str, message: str) -> FluvialError:
    if code == NoEntrypointError.code:
        return NoEntrypointError("the bundle", message)
    if code == CronError.code:
        return CronInvalidError(message)
    return ImportFailedError(f"importing the bundle failed:\n{message}")


def _names(found: object) -> tuple[str, ...]:
    names = cast("list[object]", found) if isinstance(found, list) else []
    if len(names) > _MAX_NAMES:
        raise ImportFailedError(f"the bundle registers more than {_MAX_NAMES} functions")
    return tuple(str(name) for name in names)


def _crons(found: object) -> tuple[CronSpec, ...]:
    specs = cast("list[object]", found) if isinstance(found, list) else []
    if len(specs) > MAX_CRONS:
        raise CronInvalidError(f"the bundle has {len(specs)} crons, above {MAX_CRONS}")
    try:
        return tuple(CronSpec.parse(spec) for spec in specs)
    except CronError as error:
        raise CronInvalidError(str(error)) from error
