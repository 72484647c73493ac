"""`import fluvial` stays lean: user bundles and zygotes pay for it."""

from __future__ import annotations

import subprocess
import sys

import fluvial

HEAVY = (
    *("cryptography", "pydantic", "zstandard", "httpx", "hiredis", "redis", "starlette"),
    "cronsim",  # not heavy, but most bundles declare no crons
)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import fluvial, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert found.stdout.strip() == "[]"


def test_all_names_exist() -> None:
    assert [name for name in fluvial.__all__ if not hasattr(fluvial, name)] == []
    assert sorted(fluvial.__all__) == list(fluvial.__all__)
