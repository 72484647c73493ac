"""The runtime folder holds the platform's packages for instances and nothing else."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fluvial import runtime_path
from fluvial.runtime_path import REQUIRED, runtime_folder


def test_every_required_package_imports_from_the_folder_alone(tmp_path: Path) -> None:
    folder = runtime_folder(tmp_path)
    program = (
        f"import sys; sys.path.append({str(folder)!r})\n"
        f"for name in {REQUIRED!r}: __import__(name)\n"
        "from cryptography.hazmat.primitives.ciphers.aead import AESGCM; AESGCM(bytes(32))"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr


def test_the_rest_of_the_platform_is_out_of_reach(tmp_path: Path) -> None:
    names = {path.name for path in runtime_folder(tmp_path).iterdir()}

    assert not names & {"redis", "starlette", "fluvial_gateway", "fluvial_queue", "httpx"}


def test_a_second_call_finds_the_same_folder(tmp_path: Path) -> None:
    first = runtime_folder(tmp_path)
    made = first.stat().st_ino

    assert runtime_folder(tmp_path) == first
    assert first.stat().st_ino == made


def test_racing_callers_leave_one_folder_and_no_rest(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(runtime_folder, [tmp_path] * 16))

    assert list((tmp_path / "runtime").iterdir()) == list(folders)


def test_a_missing_required_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_path, "REQUIRED", ("no_such_package",))

    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        runtime_folder(tmp_path)
