"""A whole platform that runs as root, with an interpreter that every user may execute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fluvial.unprivileged import closed_at
from tests.e2e.histories import start_run, wait_for_result
from tests.e2e.installation import platform

APP = """
import os
from pathlib import Path

from fluvial import step, workflow

HOME = Path.cwd().parents[1]


def reached() -> list[str]:
    found = []
    for name in ("token", "fingerprint.key", "keyring/nosy.key", "store", "run", "blobs", "logs"):
        path = HOME / name
        try:
            os.listdir(path) if path.is_dir() else path.read_bytes()
        except OSError:
            continue
        found.append(name)
    return found


if HOME_IS_CLOSED and (found := reached()):
    raise RuntimeError(f"the import reaches {found}")


@step
def look() -> list[object]:
    return [os.getuid(), reached()]


@workflow
async def nosy() -> list[object]:
    return await look()


def app(request):
    return {"uid": os.getuid(), "reached": reached()}
"""


def _reachable_python(folder: Path) -> Path | None:
    """Make an environment of the platform's packages around an interpreter for everybody."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for base in (Path(sys.executable), Path("/usr/bin") / name, Path("/usr/local/bin") / name):
        if base.exists() and closed_at(base) is None:
            command = [str(base), "-m", "venv", "--without-pip", str(folder)]
            subprocess.run(command, check=True, timeout=60)
            (folder / "lib" / name / "site-packages" / "platform.pth").write_text(
                "\n".join(path for path in sys.path if path.startswith("/") and Path(path).is_dir())
            )
            return folder / "bin" / "python"
    return None


def test_deployed_code_is_nobody_where_the_platform_is_root(
    short_home: Path, tmp_path: Path
) -> None:
    home = short_home / "home"
    short_home.chmod(0o755)
    python = _reachable_python(short_home / "venv")
    drops = os.geteuid() == 0 and python is not None
    (tmp_path / "main.py").write_text(f"HOME_IS_CLOSED = {drops}\n{APP}")
    (tmp_path / "fluvial.toml").write_text('name = "nosy"\nworkflows = ["main"]\n')
    command = (str(python or sys.executable), "-m", "fluvial_deploy")
    with platform(home, command=command) as running:
        app = running.deploy(tmp_path)
        with app.client() as client:
            seen = client.get("/").raise_for_status().json()
        result = wait_for_result(running, start_run(running, "nosy", "nosy"))
    assert result["status"] == "completed"
    if drops:
        assert 50_000 < seen["uid"] < 60_000
        assert seen["reached"] == []
    else:
        assert seen["uid"] == os.getuid()
