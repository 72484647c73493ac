"""Trials: tests that run against a copy of the sources, with a mutant in it or without."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.mutants import proof
from tests.mutants.mutant import REPOSITORY, DoesNotApplyError, Mutant

ROOMS: Final = {"sdk": "fluvial", "queue": "fluvial_queue"}
BASE_SECONDS: Final = 60.0  # a mutant may take so long, and some times what the tests take without
SLOWER: Final = 5
_PASSED, _FAILED = 0, 1  # pytest's exit codes
_KILLER: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_TAIL: Final = 2000  # characters of the output that are told

Verdict = Literal["killed", "survived", "does not apply", "broken"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one mutant.

    `broken`: the tests could not be run at all, which says nothing about them.
    """

    mutant: Mutant
    verdict: Verdict
    detail: str  # the test that failed, or what is wrong
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        mutant = {k: v for k, v in asdict(self.mutant).items() if k in ("name", "path", "breaks")}
        return {
            **mutant,
            "verdict": self.verdict,
            "detail": self.detail,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Run:
    """How pytest has ended; `code` is None where it was ended because it took too long."""

    code: int | None
    output: str
    seconds: float


class Copy:
    """A copy of the sources, for one mutant at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        for room in ROOMS:
            shutil.copytree(
                REPOSITORY / room,
                self._folder / room,
                ignore=shutil.ignore_patterns("__pycache__"),
            )

    def run(
        self, tests: Sequence[str], seconds: float, modules: Sequence[str] = tuple(ROOMS.values())
    ) -> Run:
        """Run tests of the repository against this copy; the modules must be imported from it."""
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=line"]
        command += ["-p", "no:cacheprovider", "-p", proof.__name__, "--hypothesis-seed=0", *tests]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(self._folder / room) for room in ROOMS),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self._folder / "hypothesis"),
            proof.ROOM: str(self._folder),
            proof.MODULES: " ".join(modules),
        }
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the servers that its tests have started
            output, _ = process.communicate()
            return Run(None, output, time.monotonic() - began)
        return Run(process.returncode, output, time.monotonic() - began)

    def try_out(self, mutant: Mutant, usual_seconds: float) -> Trial:
        """Run a mutant's tests with it in place; `usual_seconds`: what they take without it."""
        try:
            with self._mutated(mutant):
                limit = BASE_SECONDS + SLOWER * usual_seconds
                run = self.run(mutant.tests, limit, (*ROOMS.values(), mutant.module))
        except DoesNotApplyError as error:
            return Trial(mutant, "does not apply", str(error))
        if run.code is None:
            return Trial(mutant, "killed", f"took longer than {limit:.0f} s", run.seconds)
        if run.code == _PASSED:
            tests = ", ".join(mutant.tests)
            return Trial(mutant, "survived", f"{mutant.breaks} Unnoticed by: {tests}", run.seconds)
        killer = _KILLER.search(run.output)
        if run.code == _FAILED and killer is not None:
            return Trial(mutant, "killed", killer.group(1), run.seconds)
        return Trial(mutant, "broken", run.output[-_TAIL:], run.seconds)

    @contextmanager
    def _mutated(self, mutant: Mutant) -> Generator[None, None, None]:
        path = self._folder / mutant.path
        source = path.read_text("utf-8")
        changed = mutant.apply_to(source)
        try:
            _write(path, changed)
            yield
        finally:
            _write(path, source)


def _write(path: Path, text: str) -> None:
    """Write a source; its bytecode goes, as size and second alone may not tell the two apart."""
    path.write_text(text, "utf-8")
    for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        cached.unlink()
