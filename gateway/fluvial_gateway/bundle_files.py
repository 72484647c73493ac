"""What deployments have on disk: uploaded archives, unpacked bundles, layers; and how they go.

Several deployments may share each of them. A folder is renamed before it is emptied: the builder
takes one that has its name for complete.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_GONE: Final = ".gone-"


class Parts(NamedTuple):
    """The names of a deployment's files; "" where it has none."""

    source_digest: str
    bundle: str
    layer: str


class BundleFiles:
    """The files below one home."""

    def __init__(self, home: Path, blobs: Path) -> None:
        self._folders = (blobs, home / "bundles", home / "layers")  # as `Parts` are

    def remove(self, parts: Parts, others: Iterable[Parts]) -> list[str]:
        """Remove what none of the other deployments has; return the names. It blocks.

        Raises:
            OSError: something could not be removed.
        """
        kept = [set(names) for names in zip(*others, strict=True)] or [set[str]()] * len(parts)
        removed: list[str] = []
        for folder, name, needed in zip(self._folders, parts, kept, strict=True):
            if name and name not in needed and _remove(folder, name):
                removed.append(f"{folder.name}/{name}")
        return removed


def _remove(folder: Path, name: str) -> bool:
    for left in folder.glob(f"{_GONE}*"):  # by somebody who was killed
        shutil.rmtree(left)
    path = folder / name
    if not path.is_dir():
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            return True
        return False
    gone = folder / f"{_GONE}{name}"
    path.rename(gone)
    shutil.rmtree(gone)
    return True
