"""The runtime folder: what instances may import of the platform, and nothing else.

An instance's `sys.path` is its bundle, its layer and this folder. The folder holds one symbolic
link for each package below, made from wherever the running platform has it, so an editable
install and a wheel give the same result and user code never sees the rest of the platform's
`site-packages`. Its name is a digest of the links, so an upgrade makes another folder beside it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

REQUIRED: Final = (
    *("fluvial", "fluvial_invoker", "msgpack", "cryptography", "zstandard"),
    *("cronsim", "tzdata"),  # for crons: declared by user code, which is told at once what is wrong
)
# Present or not as the wheels of the machine decide (cffi is built in on some interpreters).
OPTIONAL: Final = ("cffi", "_cffi_backend", "pycparser", "uvloop", "a2wsgi", "wsproto", "h11")

_KEY_CHARACTERS = 32  # 128 bits of the digest: a folder name, not a proof


def runtime_folder(home: Path) -> Path:
    """Return `<home>/runtime/<key>`, made when it does not exist yet.

    Safe to call from several processes at once: the folder appears complete or not at all.

    Raises:
        ModuleNotFoundError: the platform's own installation lacks a required package.
    """
    links = _links()
    folder = home / "runtime" / _key(links)
    if not folder.is_dir():
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _create(folder, links)
    return folder


def _links() -> dict[str, str]:
    links: dict[str, str] = {}
    for name in (*REQUIRED, *OPTIONAL):
        origin = _origin(name)
        if origin is not None:
            links[origin.name] = str(origin)
        elif name in REQUIRED:
            raise ModuleNotFoundError(f"the platform's installation lacks {name!r}", name=name)
    return links


def _origin(name: str) -> Path | None:
    """Return the folder of a package or the file of a module; finding does not import it."""
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(os.path.realpath(next(iter(spec.submodule_search_locations))))
    return Path(os.path.realpath(spec.origin)) if spec.has_location and spec.origin else None


def _key(links: dict[str, str]) -> str:
    digest = hashlib.sha256(sys.implementation.cache_tag.encode())
    for name, target in sorted(links.items()):
        digest.update(f"\0{name}\0{target}".encode())
    return digest.hexdigest()[:_KEY_CHARACTERS]


def _create(folder: Path, links: dict[str, str]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        for name, target in links.items():
            (temporary / name).symlink_to(target)
        try:
            temporary.rename(folder)
        except OSError:
            # Another process made the same folder meanwhile; a link cannot be half right.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
