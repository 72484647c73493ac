"""What a deployment's layer brings along, and whether a zygote can serve it.

In a fork, the platform's packages are imported before the layer is looked at, so the platform's
versions win. A layer that pins another version of one of them needs an interpreter of its own.
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Final

LENT_PACKAGES: Final = (
    *("a2wsgi", "cffi", "cryptography", "msgpack", "uvloop", "zstandard"),
    *("wsproto", "h11"),  # of WebSockets
)


def conflicts(layer: Path) -> tuple[str, ...]:
    """Return what differs, e.g. "msgpack 1.0.8 (the platform has 1.1.2)"; empty: nothing does."""
    found: list[str] = []
    for distribution in distributions(path=[str(layer)]):
        name = distribution.metadata["Name"].lower().replace("_", "-")
        ours = _platform_version(name) if name in LENT_PACKAGES else None
        if ours is not None and ours != distribution.version:
            found.append(f"{name} {distribution.version} (the platform has {ours})")
    return tuple(sorted(found))


@functools.cache
def _platform_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
