"""Where the platform runs as root, an app is a user of its own, who reaches nothing of ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.unprivileged import closed_at
from tests.integration.invoker.conftest import Machine, linked
from tests.integration.invoker.test_snapshots import first_instance

ATTEMPTS = """
    import os, resource, socket, sys

    def tried(what, *arguments):
        try:
            return repr(what(*arguments))[:80]
        except BaseException as error:
            return type(error).__name__

    def connect(path):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def write(path):
        with open(path, "ab"):
            pass  # where it is allowed, nothing must change: it is the platform's own code

    def read(path):
        with open(path, "rb") as file:
            return file.read(8)

    at_import = os.getuid()

    def app(request):
        home = request.query["home"]
        run = home + "/run"
        neighbour = int(request.query["pid"])
        outcomes = {
            "keyring": tried(os.listdir, home + "/keyring"),
            "own key": tried(read, home + "/keyring/attacker.key"),
            "token": tried(read, home + "/token"),
            "home": tried(os.listdir, home),
            "bundles": tried(os.listdir, home + "/bundles"),
            "logs": tried(os.listdir, home + "/logs"),
            "invoker.sock": tried(connect, run + "/invoker.sock"),
            "neighbour's socket": tried(connect, request.query["address"]),
            "own bundle": tried(write, os.getcwd() + "/main.py"),
            "platform": tried(write, sys.modules["fluvial"].__file__),
            "kill invoker": tried(os.kill, int(request.query["invoker"]), 0),
            "kill neighbour": tried(os.kill, neighbour, 0),
            "memory": tried(read, f"/proc/{neighbour}/mem"),
            "environment": tried(read, f"/proc/{neighbour}/environ"),
            "descriptors": tried(os.listdir, f"/proc/{neighbour}/fd"),
            "neighbour's home": tried(os.listdir, home + "/users/victim"),
            "setuid": tried(os.setuid, 0),
            "setgroups": tried(os.setgroups, [0]),
        }
        with open(os.path.expanduser("~/mine"), "w") as file:
            file.write("x")
        with open("/dev/stdout", "w") as out:
            print("said through the device", file=out)
        return {
            "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
            "at_import": at_import,
            "capabilities": [line.split()[1] for line in open("/proc/self/status")
                             if line.startswith(("CapEff", "CapPrm"))],
            "outcomes": outcomes,
            "home": os.path.expanduser("~"),
            "tasks": resource.getrlimit(resource.RLIMIT_NPROC),
        }
"""
HARMLESS = {"PermissionError", "FileNotFoundError"}


def reachable_python() -> str | None:
    """Return an interpreter of this version that every user may execute."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable), Path("/usr/bin") / name, Path("/usr/local/bin") / name):
        if path.exists() and closed_at(path) is None:
            return str(path)
    return None


@pytest.fixture
def open_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine as `fluvial up` prepares it for root: closed, but for the way to the bundles."""
    home = Path(tempfile.mkdtemp(prefix="fv"))
    machine = Machine(home)
    machine.python = reachable_python() or sys.executable
    packages = [path for path in sys.path if path and not path.endswith("lib-dynload")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(packages[1:]))
    for name in ("bundles", "layers", "runtime"):
        (home / name).mkdir(mode=0o711)
        (home / name).chmod(0o711)
    (home / "logs").mkdir(mode=0o700)
    (home / "token").write_text("the administrator's")
    (home / "token").chmod(0o600)
    home.chmod(0o711)
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()
        print(machine.invoker_log[-8192:], machine.app_log("attacker")[-8192:])  # noqa: T201
        shutil.rmtree(home)


def _drops(machine: Machine) -> bool:
    return os.geteuid() == 0 and closed_at(Path(machine.python)) is None


def _layered(machine: Machine) -> str:
    folder = machine.home / "layers" / "layer1"
    folder.mkdir(mode=0o755)
    # The zygote imports this framework before it forks: it is a stranger's code, too.
    (folder / "flask.py").write_text("import os\nwhose = os.getuid()\n")
    return folder.name


@pytest.mark.parametrize(
    ("layer", "tier"), [(False, "zygote"), (True, "zygote"), (False, "snapshot")]
)
def test_an_app_reaches_nothing_of_the_platform(
    open_machine: Machine, *, layer: bool, tier: str
) -> None:
    machine = open_machine
    name = _layered(machine) if layer else ""
    victim = machine.spec("def app(request):\n    return 'fine'\n", app="victim", layer=name)
    attacker = machine.spec(ATTEMPTS, app="attacker", layer=name)

    async def main() -> None:
        async with linked(machine, victim) as (invoker, handed, neighbour):
            assert (await neighbour.get()).body == b"fine"
            pid = await invoker.pid_of(handed.instance)
            if tier == "snapshot":
                await first_instance(invoker, attacker)
            async with linked(machine, attacker) as (_, ours, link):
                assert machine.process is not None
                target = f"/?home={machine.home}&pid={pid}&address={handed.address}"
                target += f"&invoker={machine.process.pid}"
                seen = json.loads((await link.get(target)).body)
                assert ours.tier == tier
            assert (await neighbour.get()).body == b"fine"
            for _ in range(2):
                await invoker.survey()  # by then the invoker has read what was logged
        if not _drops(machine):
            assert set(seen["ids"]) == {os.getuid(), os.getgid(), *os.getgroups()}
            return
        uid = seen["ids"][0]
        assert 50_000 < uid < 60_000
        assert seen["ids"] == [uid] * 6
        assert seen["at_import"] == uid
        assert set(seen["capabilities"]) == {"0" * 16}
        reached = {what: how for what, how in seen["outcomes"].items() if how not in HARMLESS}
        assert reached == {}
        assert "said through the device" in machine.app_log("attacker")
        folder = machine.home / "users" / "attacker"
        assert seen["home"] == str(folder)
        assert seen["tasks"] == [4096, 4096]
        assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (uid, 0o700)

    asyncio.run(main())


def test_what_a_layer_brings_never_runs_as_root(open_machine: Machine) -> None:
    """Neither in the zygote that imports it early, nor in a process that is spawned for it."""
    machine = open_machine
    forked = _layered(machine)
    other = machine.home / "layers" / "layer2"
    (other / "cffi-0.0.1.dist-info").mkdir(parents=True, mode=0o755)
    metadata = "Metadata-Version: 2.1\nName: cffi\nVersion: 0.0.1\n"
    (other / "cffi-0.0.1.dist-info" / "METADATA").write_text(metadata)
    (other / "msgpack.py").write_text(
        "import os, sys\nwhose = os.getuid()\n"
        "here = os.path.dirname(__file__)\nsys.path.remove(here)\n"
        "del sys.modules['msgpack']\nimport msgpack\nmsgpack.whose = whose\n"
        "sys.path.append(here)\n"
    )
    apps = {
        "zygote": machine.spec(
            "import flask\ndef app(request):\n    return str(flask.whose)\n", layer=forked
        ),
        "spawn": machine.spec(
            "import msgpack\ndef app(request):\n    return str(msgpack.whose)\n", layer="layer2"
        ),
    }

    async def main() -> None:
        for tier, spec in apps.items():
            async with linked(machine, spec) as (_, handed, link):
                whose = int((await link.get()).body)
                assert handed.tier == tier
                assert (whose != os.getuid()) is _drops(machine)

    asyncio.run(main())
