"""Which changes of a folder are told, and that none is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fluvial.errors import BundleError
from fluvial_deploy.dev.watching import FolderWatch

SECONDS = 10.0
Scenario = Callable[[FolderWatch], Awaitable[None]]


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def watch(folder: Path, scenario: Scenario) -> None:
    """Play a scenario while `folder` is watched."""

    async def main() -> None:
        watching = FolderWatch(folder)
        running = asyncio.create_task(watching.run())
        try:
            async with asyncio.timeout(SECONDS):
                assert await watching.next() == []  # it watches now
                await scenario(watching)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


async def told(watching: FolderWatch, path: str) -> list[str]:
    """Wait until a path is told; return all that was told until then."""
    found: list[str] = []
    while path not in found:
        found += await watching.next()
    return found


def test_what_a_bundle_takes_along_and_env_files_are_told(tmp_path: Path) -> None:
    for folder in (".git", ".venv", ".fluvial/logs", "web/__pycache__", "own"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "own" / "pyvenv.cfg")
    write(tmp_path / ".fluvialignore", "*.tmp\n")

    async def scenario(watching: FolderWatch) -> None:
        for name in (".git/x", ".venv/x.py", ".fluvial/logs/x", "own/x.py", "web/__pycache__/x.py"):
            write(tmp_path / name)
        for name in ("a.tmp", "x.pyc", ".env.production", "web/main.py", ".env", ".env.local"):
            write(tmp_path / name)
        write(tmp_path / "last.py")

        names = {*await told(watching, "last.py")}
        assert names == {"web/main.py", ".env", ".env.local", "last.py"}

    watch(tmp_path, scenario)


def test_a_new_folder_is_watched_with_what_was_in_it_before(tmp_path: Path) -> None:
    async def scenario(watching: FolderWatch) -> None:
        write(tmp_path / "new" / "inner" / "early.py")
        await told(watching, "new")
        write(tmp_path / "new" / "inner" / "late.py")
        # Either it is told, or, where it was written too early for that, that one has to look.
        while "new/inner/late.py" not in (found := await watching.next()) and found:
            pass

    watch(tmp_path, scenario)


def test_what_changes_while_nobody_waits_is_told_at_once_later(tmp_path: Path) -> None:
    async def scenario(watching: FolderWatch) -> None:
        write(tmp_path / "a.py")
        await told(watching, "a.py")
        write(tmp_path / "b.py")
        write(tmp_path / "c.py")
        (tmp_path / "a.py").unlink()

        found = await told(watching, "b.py")
        assert "c.py" in found or await told(watching, "c.py")

    watch(tmp_path, scenario)


def test_too_many_folders_are_refused_with_the_way_out(tmp_path: Path) -> None:
    for number in range(5001):
        (tmp_path / f"{number}").mkdir()

    with pytest.raises(BundleError, match=r"more than 5000 folders: leave some out with"):
        asyncio.run(FolderWatch(tmp_path).run())
