"""Bytecode, compiled at deploy so that no cold start compiles.

Unchecked-hash bytecode is used without a look at the source's time: bundles and layers never
change. It is compiled in a process of its own, because the source is a stranger's and the compiler
may exhaust it. A file that does not compile is left to its import, which says why.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from fluvial_deploy.builder.children import ChildTimeoutError, LogLine, run_child

_COMPILE_SECONDS: Final = 300.0


async def compile_tree(folder: Path, final: Path, log: LogLine) -> None:
    """Compile all of `folder`, which will be renamed to `final`; tracebacks name the latter."""
    command = [
        *(sys.executable, "-I", "-S", "-m", "compileall", "-qq", "-j", "2"),
        *("--invalidation-mode", "unchecked-hash"),
        *("-s", str(folder), "-p", str(final), str(folder)),
    ]
    try:
        await run_child(
            command,
            environment={"LANG": "C.UTF-8"},
            directory=folder,
            log=log,
            timeout_seconds=_COMPILE_SECONDS,
        )
    except ChildTimeoutError as error:
        await log(f"compiling bytecode {error}; what is missing is compiled at import")
