"""The first code in a restricted process; run by path, as `python -I -S <this file> …`.

Arguments: what to become (`zygote` or `spawned`), the runtime folder, the layer folder or "", then
the arguments of that module's `main`.

`-I -S` leaves the standard library on the import path. This adds the layer (before the platform's
copies, for a spawned instance) and the runtime folder, and makes sure that `fluvial` is always the
platform's, even where the user's layer has one too.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder

_PLATFORM = ("fluvial", "fluvial_invoker")


class PlatformFinder:
    """Finds the platform's packages in the runtime folder, whatever else is on the path."""

    def __init__(self, runtime_path: str) -> None:
        self._path = [runtime_path]

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, self._path) if name in _PLATFORM else None


def main(arguments: list[str]) -> None:
    """Set the import path and hand over."""
    role, runtime_path, layer_path, *rest = arguments
    sys.meta_path.insert(0, PlatformFinder(runtime_path))
    if role == "spawned" and layer_path:
        sys.path.append(layer_path)
    sys.path.append(runtime_path)
    module = importlib.import_module(f"fluvial_invoker.instance.{role}")
    module.main([*rest, layer_path] if role == "zygote" else rest)


if __name__ == "__main__":
    main(sys.argv[1:])
