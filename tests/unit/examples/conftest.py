"""Makes the bundles under `examples/` importable the way an instance imports them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fluvial.registry import registry

EXAMPLES = Path(__file__).parents[3] / "examples"
sys.path.append(str(EXAMPLES / "chess"))  # for `engines`; each bundle has its own `main`


@pytest.fixture
def load_bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports `examples/<name>/main.py` afresh, as a module of that name."""

    def load(name: str) -> ModuleType:
        folder = EXAMPLES / name
        for path in EXAMPLES.glob("*/*.py"):  # bundles have modules of the same name
            monkeypatch.delitem(sys.modules, path.stem, raising=False)
        monkeypatch.setattr(registry, "steps", {})
        monkeypatch.setattr(registry, "workflows", {})
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        spec = importlib.util.spec_from_file_location(f"example_{name}", folder / "main.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
