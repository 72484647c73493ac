"""One reload: pack the folder, have it built and promoted, and let live runs follow."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fluvial.errors import FluvialError
from fluvial_deploy.dev.moving import move_runs
from fluvial_deploy.dev.settings import DevSettings
from fluvial_deploy.dev.telling import Teller
from fluvial_deploy.dev.variables import read_variables, set_variables

if TYPE_CHECKING:
    from fluvial.client import Client, Deployed
    from fluvial.manifest import Manifest


class Reloader:
    """Deploys one folder again and again; used from one task."""

    def __init__(self, settings: DevSettings, client: Client, teller: Teller) -> None:
        self._settings = settings
        self._client = client
        self._teller = teller
        self._tried = ""  # the digest of the bundle that was deployed last, well or not
        self._has_failed = False  # the last time
        self._left_out: list[str] = []
        self.app = ""
        self.deployment: str | None = None

    async def reload(self, changed: Sequence[str]) -> None:
        """Deploy the folder as it is, if that differs from last time; tell how it went."""
        began = time.monotonic()
        try:
            deployed = await asyncio.to_thread(self._deploy, changed)
        except (FluvialError, OSError) as error:
            self._has_failed = True
            code = getattr(error, "problem_code", None) or getattr(error, "code", "error")
            self._teller.failed(code=str(code), message=str(error), serving=self.deployment)
            return
        if deployed is None:
            return
        self._has_failed = False
        self.deployment = str(deployed.deployment["deployment"])
        self._teller.deployed(
            deployment=self.deployment,
            urls=_urls(deployed.url),
            created=deployed.created,
            ms=round((time.monotonic() - began) * 1000),
        )
        await self._move_runs(self.deployment)

    async def _move_runs(self, deployment: str) -> None:
        try:
            async for moved in move_runs(self._client, deployment):
                self._teller.run(moved)
        except FluvialError as error:
            self._teller.note(f"live runs stay where they are: {error}")

    def _deploy(self, changed: Sequence[str]) -> Deployed | None:
        """Return what was deployed; None: there was no reason to."""
        from fluvial.bundle import pack
        from fluvial.manifest import load_manifest

        folder = self._settings.folder
        variables, left_out = read_variables(folder)
        if left_out != self._left_out:
            self._left_out = left_out
            for text in left_out:
                self._teller.note(f"left out of the environment: {text}")
        manifest = load_manifest(folder, name=self._settings.name)
        self.app = manifest.name
        has_new_variables = set_variables(
            self._client, manifest.name, variables, self._settings.import_environment
        )
        with tempfile.TemporaryDirectory(prefix="fluvial-") as work:
            packed = pack(folder, Path(work) / "bundle.tar.zst")
            is_same = packed.digest == self._tried and not has_new_variables
            if is_same and not self._has_failed:
                return None
            self._tried = packed.digest
            if changed:
                self._teller.changed(changed)
            return self._send(packed.archive, packed.digest, manifest)

    def _send(self, archive: Path, digest: str, manifest: Manifest) -> Deployed:
        from fluvial.client import Deployed
        from fluvial.errors import UnavailableError

        for line in self._client.deploy(archive, digest, name=manifest.name):
            if isinstance(line, Deployed):
                return line
            self._teller.build_log(line)
        raise UnavailableError("the platform did not say how the deploy ended")


def _urls(url: str) -> list[str]:
    """Return where the app answers: first what every client understands."""
    parts = urlsplit(url)
    return [f"{parts.scheme}://localhost:{parts.port}", url]
