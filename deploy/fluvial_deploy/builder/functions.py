"""What a bundle can execute, found by importing it once in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from fluvial.crons import MAX_CRONS, CronSpec
from fluvial.errors import CronError, FluvialError, NoEntrypointError
from fluvial.manifest import Manifest
from fluvial_deploy.builder.children import ChildTimeoutError, LogLine, printable, run_child
from fluvial_deploy.builder.refusals import CronInvalidError, ImportFailedError

IMPORT_SECONDS: Final = 60.0
_PROGRAM: Final = Path(__file__).with_name("inspection.py")
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_MAX_NAMES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """What a deployment can execute."""

    entrypoint: str | None
    interface: str | None  # asgi, wsgi or handler
    workflows: tuple[str, ...]
    steps: tuple[str, ...]
    crons: tuple[CronSpec, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack."""
        return {
            "entrypoint": self.entrypoint,
            "interface": self.interface,
            "workflows": list(self.workflows),
            "steps": list(self.steps),
            "crons": [cron.to_dict() for cron in self.crons],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPath:
    """Where a bundle's imports come from."""

    bundle: Path
    layer: Path | None
    runtime: Path


async def inspect_bundle(
    path: ImportPath,
    manifest: Manifest,
    log: LogLine,
    *,
    timeout_seconds: float = IMPORT_SECONDS,
    uid: int | None = None,
) -> Functions:
    """Return what the bundle registers when its modules are imported.

    Raises:
        NoEntrypointError: the entrypoint is missing or not callable.
        ImportFailedError: the bundle's code raised, ended its process, or took too long.
        CronInvalidError: a cron does not fit its workflow.
    """
    # A file, not a pipe: a process that the bundle leaves behind could keep a pipe open for ever.
    with tempfile.TemporaryFile() as answer:
        try:
            status = await _run(path, manifest, log, answer.fileno(), uid, timeout_seconds)
        except ChildTimeoutError as error:
            raise ImportFailedError(
                f"importing the bundle {error}: move slow work out of the import"
            ) from error
        answer.seek(0)
        return _functions(answer.read(_MAX_ANSWER_BYTES + 1), status, manifest)


async def _run(
    path: ImportPath,
    manifest: Manifest,
    log: LogLine,
    answer_fd: int,
    uid: int | None,
    timeout_seconds: float,
) -> int:
    request = {
        "bundle": str(path.bundle),
        "layer": str(path.layer) if path.layer else "",
        "runtime": str(path.runtime),
        "entrypoint": manifest.app,
        "workflows": manifest.workflows,
        "crons": [(cron.workflow, asdict(cron.cron)) for cron in manifest.crons],
        "answer_fd": answer_fd,
    }
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as asked:
        # A file, not an argument: the arguments of a process are bounded, those of crons less so.
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        if uid is not None:
            os.chown(home, uid, uid)
        return await run_child(
            [sys.executable, "-I", "-S", "-X", "utf8", "-B", str(_PROGRAM), str(asked.fileno())],
            environment={"HOME": home, "TMPDIR": home, "PATH": os.defpath, "LANG": "C.UTF-8"},
            directory=path.bundle,
            log=log,
            timeout_seconds=timeout_seconds,
            pass_fds=(answer_fd, asked.fileno()),
            uid=uid,
        )


def _functions(answer: bytes, status: int, manifest: Manifest) -> Functions:
    """Return what an answer says; it comes out of a stranger's process and is not trusted."""
    try:
        found: Any = json.loads(answer) if len(answer) <= _MAX_ANSWER_BYTES else None
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
        interface=interface if interface in ("asgi", "wsgi", "handler") else None,
        workflows=_names(fields.get("workflows")),
        steps=_names(fields.get("steps")),
        crons=_crons(fields.get("crons")),
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
