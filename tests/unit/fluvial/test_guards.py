"""The guards go up once per process, before user code, and do no harm to those who look closely."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from fluvial import guards


def test_installing_twice_changes_nothing() -> None:
    guards.install()
    before = time.time, os.urandom, datetime.now
    guards.install()

    assert before == (time.time, os.urandom, datetime.now)


def test_what_writes_into_c_functions_sees_them_first(tmp_path: Path) -> None:
    (tmp_path / "_time_machine.py").write_text("import time\nfound = type(time.time).__name__\n")
    code = (
        "from fluvial import guards; guards.install(); import time, _time_machine;"
        "print(_time_machine.found, type(time.time).__name__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    assert found.stdout.split() == ["builtin_function_or_method", "method"]
