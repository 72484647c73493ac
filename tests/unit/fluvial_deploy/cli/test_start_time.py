"""The command line starts fast: what a command does not need is not imported."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "httpx",
    "rich",
    "importlib.metadata",
    "redis",
    "cryptography",
    "zstandard",
    "fluvial_queue",
)


def test_importing_the_commands_imports_nothing_heavy() -> None:
    program = (
        "import sys, fluvial_deploy.cli.commands\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == ""
