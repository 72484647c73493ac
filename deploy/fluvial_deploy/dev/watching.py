"""Watching a folder: what would change its bundle or its environment, and nothing else.

Each folder is watched by itself, because what the bundle leaves out (`.venv`, `node_modules`, the
platform's own home) may be large and busy. A folder that comes or goes makes the watch begin anew,
and since something may have changed meanwhile, that counts as a change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from watchfiles import (
    awatch,  # pyright: ignore[reportUnknownVariableType]  # a part of it is trio's, which is not here
)

from fluvial.errors import BundleError
from fluvial.ignoring import IGNORE_FILE, IgnoreRules

ENV_FILES: Final = (".env", ".env.local")  # of a name in both, the later file's value counts
_ALWAYS: Final = frozenset({*ENV_FILES, IGNORE_FILE})
_STEP_MS: Final = 30  # of silence, after which a change is told: editors write in several steps
_DEBOUNCE_MS: Final = 400  # the longest that a change waits for others
_MAX_FOLDERS: Final = 5000


class FolderWatch:
    """Collects what changes while somebody is busy with what has changed before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed: set[str] = set()
        self._is_due = asyncio.Event()

    async def next(self) -> list[str]:
        """Wait until something has changed since the last call, or may have; return the paths,
        relative to the folder. The first call returns once the folder is watched."""
        await self._is_due.wait()
        self._is_due.clear()
        changed, self._changed = sorted(self._changed), set()
        return changed

    async def run(self) -> None:
        """Watch, for ever.

        Raises:
            BundleError: there are too many folders to watch.
        """
        while True:
            watched = _Watched(self._folder)
            found = changed_files(*watched.folders, is_of_interest=watched.is_of_interest)
            async with aclosing(found):
                waiting = asyncio.create_task(anext(found))
                await asyncio.sleep(0)  # its first step, up to which it watches
                self._is_due.set()  # a new folder may have been filled before it was watched
                while _Watched(self._folder).folders == watched.folders:
                    paths = await waiting  # first: `next` may put another set in the place
                    self._changed.update(map(watched.relative, paths))
                    self._is_due.set()
                    waiting = asyncio.create_task(anext(found))
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


async def changed_files(
    *folders: Path, is_of_interest: Callable[[str], bool]
) -> AsyncGenerator[frozenset[str], None]:
    """Yield paths that change directly in some folders, those of one moment together."""
    async for found in awatch(
        *folders,
        watch_filter=lambda _, path: is_of_interest(path),
        step=_STEP_MS,
        debounce=_DEBOUNCE_MS,
        recursive=False,
    ):
        yield frozenset(path for _, path in found)


class _Watched:
    """The folders of a bundle, and which changes in them matter, as the rules are now."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rules = _rules(root)
        self.folders = sorted(self._walk())

    def relative(self, path: str) -> str:
        return Path(path).relative_to(self._root).as_posix()

    def is_of_interest(self, path: str) -> bool:
        name = self.relative(path)
        return name in _ALWAYS or not self._rules.ignores(name, is_directory=os.path.isdir(path))

    def _walk(self) -> Iterable[Path]:
        for found, (folder, below, _) in enumerate(os.walk(self._root), start=1):
            if found > _MAX_FOLDERS:
                raise BundleError(
                    f"{self._root} has more than {_MAX_FOLDERS} folders: leave some out with"
                    f" {IGNORE_FILE}"
                )
            yield Path(folder)
            below[:] = [name for name in below if not self._leaves_out(Path(folder, name))]

    def _leaves_out(self, folder: Path) -> bool:
        is_environment = (folder / "pyvenv.cfg").is_file()
        return is_environment or self._rules.ignores(self.relative(str(folder)), is_directory=True)


def _rules(root: Path) -> IgnoreRules:
    try:
        return IgnoreRules.of(root)
    except BundleError:
        return IgnoreRules(())  # the deploy says what is wrong; meanwhile everything matters
