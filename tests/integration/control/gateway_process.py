"""A gateway as its own program, without a supervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOKEN = "flv_" + "t" * 43  # an administrator's


def prepared(home: Path) -> dict[str, str]:
    """Make a home for a gateway; return the environment that it needs."""
    (home / "run").mkdir()
    (home / "token").write_text(TOKEN)
    (home / "token").chmod(0o600)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLUVIAL_")},
        "FLUVIAL_HOME": str(home),
        "FLUVIAL_RUN_DIR": str(home / "run"),
        "FLUVIAL_STORE": "memory://",
    }


@contextmanager
def started(
    environment: Mapping[str, str],
) -> Generator[tuple[subprocess.Popen[str], str, str], None, None]:
    """Yield (the program, its control URL, its HTTP URL) once it is ready."""
    ready, tell = os.pipe()
    with (
        socket.create_server(("127.0.0.1", 0)) as http,
        socket.create_server(("127.0.0.1", 0)) as control,
        open(ready, "rb") as answer,
    ):
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in (control, http)]
        inherited = (http.fileno(), control.fileno(), tell)
        program = subprocess.Popen(
            [sys.executable, "-m", "fluvial_gateway"],
            env={
                **environment,
                "FLUVIAL_HTTP_FD": str(http.fileno()),
                "FLUVIAL_CONTROL_FD": str(control.fileno()),
                "FLUVIAL_READY_FD": str(tell),
                "FLUVIAL_CONTROL_URL": urls[0],
                "FLUVIAL_HTTP_URL": urls[1],
            },
            pass_fds=inherited,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(tell)
        try:
            assert answer.readline() == b"READY\n"
            yield program, urls[0], urls[1]
        finally:
            program.kill()
            program.communicate()
