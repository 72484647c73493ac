"""Processes that import one bundle each (`inspection.py`): started, told what to import, ended.

Where the next bundle is expected soon (`fluvial dev`), a process waits for it in advance: it has
its interpreter, the SDK and the layer's frameworks, and nothing of any bundle.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from fluvial_deploy.builder.children import Child, LogLine

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_PROGRAM: Final = Path(__file__).with_name("inspection.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPath:
    """Where a bundle's imports come from."""

    bundle: Path
    layer: Path | None
    runtime: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """One bundle that is to be imported."""

    path: ImportPath
    request: Mapping[str, Any]  # what `inspection.py` is asked
    environment: Mapping[str, str]
    log: LogLine
    timeout_seconds: float
    uid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a process that imported a bundle has left; nothing in it is to be trusted."""

    status: int
    answer: bytes  # one byte longer than it may be, if it is too long


class Imports:
    """Has bundles imported, one at a time, each in a process of its own."""

    def __init__(self, *, keeps_one_ready: bool = False) -> None:
        self._keeps_one_ready = keeps_one_ready
        self._ready: _ImportProcess | None = None

    async def run(self, job: ImportJob) -> Imported:
        """Return what importing a bundle has come to.

        Raises:
            ChildTimeoutError: it did not end in time.
        """
        ready, self._ready = self._ready, None
        if ready is not None and not ready.fits(job):
            await ready.discard()
            ready = None
        process = ready or await _ImportProcess.start(job)
        try:
            return await process.run(job)
        finally:
            if self._keeps_one_ready:
                self._ready = await _ImportProcess.start(job, prepares=True)

    async def close(self) -> None:
        """End what waits."""
        if self._ready is not None:
            await self._ready.discard()


class _ImportProcess:
    def __init__(self, job: ImportJob, child: Child, answer: IO[bytes], home: str) -> None:
        self._place = _place_of(job)
        self._child = child
        self._answer = answer
        self._home = home
        self._owned = ExitStack()

    @classmethod
    async def start(cls, job: ImportJob, *, prepares: bool = False) -> _ImportProcess:
        """Start a process that waits for a request; `prepares`: it imports meanwhile what bundles
        with this layer are likely to import."""
        path, uid = job.path, job.uid
        prepared = [str(path.runtime), str(path.layer or "")] if prepares else []
        with ExitStack() as owned:
            # A file, not a pipe: what the bundle leaves behind could keep a pipe open for ever.
            answer = owned.enter_context(tempfile.TemporaryFile())
            home = owned.enter_context(tempfile.TemporaryDirectory())
            if uid is not None:
                os.chown(home, uid, uid)
            command = (sys.executable, "-I", "-S", "-X", "utf8", "-B", str(_PROGRAM))
            child = await Child.start(
                [*command, str(answer.fileno()), *prepared],
                environment={"HOME": home, "LANG": "C.UTF-8"},
                directory=Path(home),
                pass_fds=(answer.fileno(),),
                uid=uid,
                reads=True,
            )
            process = cls(job, child, answer, home)
            process._owned = owned.pop_all()
        return process

    def fits(self, job: ImportJob) -> bool:
        """Tell whether it can import this job's bundle."""
        return self._place == _place_of(job)

    async def run(self, job: ImportJob) -> Imported:
        """Have it import a bundle, and wait for its end."""
        fixed = {"HOME": self._home, "TMPDIR": self._home, "PATH": os.defpath, "LANG": "C.UTF-8"}
        request = {**job.request, "environment": {**job.environment, **fixed}}
        with self._owned:
            status = await self._child.finish(
                job.log, timeout_seconds=job.timeout_seconds, told=json.dumps(request).encode()
            )
            self._answer.seek(0)
            return Imported(status=status, answer=self._answer.read(MAX_ANSWER_BYTES + 1))

    async def discard(self) -> None:
        """End it without a request."""
        with self._owned:
            await self._child.kill()


def _place_of(job: ImportJob) -> tuple[Path, Path | None, int | None]:
    return job.path.runtime, job.path.layer, job.uid
