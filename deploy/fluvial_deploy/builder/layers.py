"""Layers: installed dependencies, shared by all deployments that ask for the same ones.

A layer is made in a folder of its own and appears under its key in one rename, so whoever sees it
sees it complete. It is never changed afterwards.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uv import find_uv_bin

from fluvial_deploy.builder.bytecode import compile_tree
from fluvial_deploy.builder.children import ChildTimeoutError, LogLine, run_child
from fluvial_deploy.builder.refusals import DependenciesFailedError
from fluvial_deploy.builder.requirements import (
    Requirements,
    declared_requirements,
    has_lock,
    locked_requirements,
)

_INSTALL_SECONDS: Final = 600.0  # large wheels over a slow line
_EXPORT_SECONDS: Final = 60.0
_LAST_LINES: Final = 12  # of uv's output, for the message of a failure


@dataclass(frozen=True, slots=True)
class LayerInstaller:
    """Makes layers below `folder` with uv."""

    folder: Path
    environment: Mapping[str, str]

    async def install(self, bundle: Path, log: LogLine, *, source_builds: bool) -> str:
        """Return the key of the layer that `bundle` needs, "" when it needs none.

        Raises:
            DependenciesFailedError: the requirements cannot be read or installed.
        """
        requirements = await self._requirements(bundle, log)
        if requirements is None:
            return ""
        key = requirements.key(source_builds=source_builds)
        if (self.folder / key).is_dir():
            await log(f"dependencies of {requirements.source}: already installed")
            return key
        await log(f"installing the dependencies of {requirements.source}")
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.folder))
        try:
            layer = await self._install(requirements, work, log, source_builds=source_builds)
            await compile_tree(layer, self.folder / key, log)
            _publish(layer, self.folder / key)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return key

    async def _requirements(self, bundle: Path, log: LogLine) -> Requirements | None:
        if not has_lock(bundle):
            return declared_requirements(bundle)
        with tempfile.TemporaryDirectory() as work:
            exported = Path(work) / "requirements.txt"
            command = [
                *("export", "--project", str(bundle), "--frozen", "--no-dev", "--quiet"),
                *("--no-emit-project", "--no-annotate", "--no-header", "--python", sys.executable),
                *("--format", "requirements-txt", "--output-file", str(exported)),
            ]
            await self._uv(command, Path(work), log, _EXPORT_SECONDS)
            return locked_requirements(exported.read_text("utf-8"))

    async def _install(
        self, requirements: Requirements, work: Path, log: LogLine, *, source_builds: bool
    ) -> Path:
        wanted, layer = work / "requirements.txt", work / "layer"
        wanted.write_text(requirements.text, "utf-8")
        command = [
            *("pip", "install", "--target", str(layer), "--python", sys.executable),
            # Copies, not hard links: what an app does to its layer must not reach uv's cache.
            *("--requirement", str(wanted), "--link-mode", "copy", "--no-progress"),
            *(() if source_builds else ("--only-binary", ":all:")),
        ]
        await self._uv(command, work, log, _INSTALL_SECONDS)
        layer.mkdir(exist_ok=True)  # every requirement may have been for another platform
        (layer / ".lock").unlink(missing_ok=True)
        return layer

    async def _uv(
        self, arguments: list[str], directory: Path, log: LogLine, timeout_seconds: float
    ) -> None:
        said: list[str] = []

        async def listen(line: str) -> None:
            said.append(line)
            await log(line)

        environment = {
            **self.environment,
            "NO_COLOR": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
        }
        try:
            status = await run_child(
                [find_uv_bin(), *arguments],
                environment=environment,
                directory=directory,  # not the bundle: its own uv settings are a stranger's
                log=listen,
                timeout_seconds=timeout_seconds,
            )
        except ChildTimeoutError as error:
            raise DependenciesFailedError(f"uv {arguments[0]} {error}") from error
        if status != 0:
            reason = "\n".join(said[-_LAST_LINES:]) or f"uv ended with status {status}"
            raise DependenciesFailedError(f"the dependencies cannot be installed:\n{reason}")


def _publish(made: Path, target: Path) -> None:
    """Give a finished folder its name; another builder may have made the same one meanwhile."""
    made.chmod(0o755)
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
