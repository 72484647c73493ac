"""Makes all attempts in a real instance, beside another app's, on a machine of real processes."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from fluvial.manifest import Isolation
from fluvial.unprivileged import closed_at
from tests.escapes.attempts import ATTEMPTS, PRELUDE
from tests.integration.invoker.conftest import InvokerLink, Machine

Owner = Literal["one user", "users of their own"]
NOBODY: Final = 65534
_NEW_SEGMENT: Final = 0o3666  # IPC_CREAT | IPC_EXCL, for everybody
_REMOVE: Final = 0
_APP: Final = """
import json

def app(request):
    facts = json.loads(request.body)
    seen = {}
    for name, program in facts["programs"].items():
        names = {"facts": facts}
        exec(facts["prelude"], names)
        try:
            exec(program, names)
        except Exception as error:
            seen[name] = f"{type(error).__name__}: {error}"
        else:
            seen[name] = ""
    return seen
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A column of the table."""

    isolation: Isolation
    owner: Owner

    def __str__(self) -> str:
        return f"`{self.isolation}`, {self.owner}"

    @property
    def is_possible(self) -> bool:
        """Whether this machine, and who runs the tests, can give it."""
        return self.owner == "one user" or (os.geteuid() == 0 and reachable_python() is not None)


TIERS: Final = tuple(
    Tier(isolation=isolation, owner=owner)
    for isolation in ("process", "jail")
    for owner in ("one user", "users of their own")
)


def observe(tier: Tier) -> dict[str, str]:
    """Return how each attempt ends: an empty text where it reaches its aim, else the error."""
    with open_machine(tier.owner) as machine, ExitStack() as stack:
        facts = _facts(machine, stack)
        return asyncio.run(_attempt(machine, tier.isolation, facts))


@contextmanager
def open_machine(owner: Owner) -> Generator[Machine]:
    """A machine as `fluvial up` prepares it, run by root or by an ordinary user."""
    home = Path(tempfile.mkdtemp(prefix="fv"))
    machine = Machine(home)
    machine.python = reachable_python() or sys.executable
    for name in ("bundles", "layers", "runtime"):
        (home / name).mkdir(mode=0o711)
        (home / name).chmod(0o711)
    for name in ("keyring", "logs"):
        (home / name).mkdir(mode=0o700)
    (home / "token").write_text("the administrator's")
    (home / "token").chmod(0o600)
    home.chmod(0o711)
    packages = [path for path in sys.path if path and not path.endswith("lib-dynload")]
    environment = {"PYTHONPATH": os.pathsep.join(packages[1:])}
    user = None
    if os.geteuid() == 0 and owner == "one user" and reachable_python() is not None:
        user = NOBODY
        for path in (home, *home.rglob("*")):
            os.chown(path, user, user)
    try:
        machine.start(user=user, **environment)
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(home)


def reachable_python() -> str | None:
    """Return an interpreter of this version that every user may execute."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable), Path("/usr/bin") / name, Path("/usr/local/bin") / name):
        if path.exists() and closed_at(path) is None:
            return str(path)
    return None


def _facts(machine: Machine, stack: ExitStack) -> dict[str, Any]:
    """Place on the machine what the attempts are about, for everybody to reach."""
    facts: dict[str, Any] = {"home": str(machine.home), "abstract": machine.home.name}
    for name, folder in (("shared_file", "/tmp"), ("shm_file", "/dev/shm")):
        fd, path = tempfile.mkstemp(prefix="fv", dir=folder)
        os.fchmod(fd, 0o666)
        os.close(fd)
        stack.callback(os.unlink, path)
        facts[name] = path
    for family, address in (
        (socket.AF_UNIX, f"\0{machine.home.name}"),
        (socket.AF_INET, ("127.0.0.1", 0)),
    ):
        listener = stack.enter_context(socket.socket(family))
        listener.bind(address)
        listener.listen()
        if family == socket.AF_INET:
            facts["port"] = listener.getsockname()[1]
    libc = ctypes.CDLL(None, use_errno=True)
    facts["shm_key"] = os.getpid()
    segment = libc.shmget(facts["shm_key"], 4096, _NEW_SEGMENT)
    assert segment >= 0
    stack.callback(libc.shmctl, segment, _REMOVE, None)
    return facts


async def _attempt(machine: Machine, isolation: Isolation, facts: dict[str, Any]) -> dict[str, str]:
    victim = machine.spec("def app(request):\n    return 'victim'\n", app="victim")
    attacker = machine.spec(_APP, app="attacker", isolation=isolation)
    owner = machine.home.stat().st_uid
    for path in (machine.home / "bundles").rglob("*"):
        os.chown(path, owner, owner)
    invoker = await machine.connect()
    handed, other = await invoker.open(victim)
    await other.get()
    facts |= {
        "other_bundle": str(machine.home / "bundles" / victim.bundle),
        "other_address": handed.address,
        "other_pid": await invoker.pid_of(handed.instance),
        "invoker_pid": machine.process.pid if machine.process else 0,
        "prelude": PRELUDE,
        "programs": {attempt.name: attempt.program for attempt in ATTEMPTS},
    }
    seen = await _ask(invoker, attacker, facts)
    await other.close()
    await invoker.close()
    return seen


async def _ask(invoker: InvokerLink, attacker: Any, facts: dict[str, Any]) -> dict[str, str]:
    _, link = await invoker.open(attacker)
    reply = await link.get(method="POST", body=json.dumps(facts).encode())
    await link.close()
    assert reply.status == 200, reply
    return cast("dict[str, str]", json.loads(reply.body))
