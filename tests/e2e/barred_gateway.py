"""`fluvial` whose gateway may not open any file of the keyring.

Run without arguments of its own it is the command line, with one difference: it starts the gateway
through this file again, with an audit hook (PEP 578) that refuses every `open` below `keyring/`.
"""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

_BARRED = "--barred-gateway"


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and arguments:
        path = Path(str(arguments[0]))
        if "keyring" in path.parts:
            raise PermissionError(f"the gateway may not read {path}")


def _gateway() -> None:
    sys.addaudithook(_refuse)
    sys.argv = ["fluvial_gateway"]
    runpy.run_module("fluvial_gateway", run_name="__main__", alter_sys=True)


def _command_line() -> None:
    from fluvial_deploy.__main__ import main
    from fluvial_deploy.up import programs

    usual = programs.gateway

    def barred(*arguments: object) -> object:
        program = usual(*arguments)  # type: ignore[arg-type]  # handed on as they are
        return dataclasses.replace(program, command=(sys.executable, __file__, _BARRED))

    programs.gateway = barred  # type: ignore[assignment]  # the one difference
    main()


if __name__ == "__main__":
    _gateway() if _BARRED in sys.argv else _command_line()
