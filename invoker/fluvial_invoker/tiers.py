"""Which isolation tiers this machine can give; `python -m fluvial_invoker.tiers` tells as JSON.

Whether there can be a jail is found out by entering one: what kernels, containers and policies
refuse is too various for any list.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Final

from fluvial.networks import ALL_NETWORK, NO_NETWORK
from fluvial_invoker.instance.confinement import become
from fluvial_invoker.instance.jail import entering, landlock, seccomp
from fluvial_invoker.instance.jail.kernel import MACHINE, control_process

_PROBE_SECONDS: Final = 30.0
_SET_NO_NEW_PRIVS: Final = 38
_WITH: Final = "jail"
_WITHOUT: Final = "jail_without_network"


class Tiers:
    """What the machine can give; found out once, when somebody asks."""

    def __init__(self, uid: int | None) -> None:
        self._uid = uid
        self._found: asyncio.Future[dict[str, str | None]] | None = None

    async def obstacle(self, network: str) -> str | None:
        """Return why there can be no jail with this network; None: there can be."""
        if self._found is None:
            self._found = asyncio.ensure_future(self._probe())
        found = await asyncio.shield(self._found)
        return found[_WITHOUT if network == NO_NETWORK else _WITH]

    async def _probe(self) -> dict[str, str | None]:
        options = () if self._uid is None else ("--uid", str(self._uid))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, *options, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            output = b""
        try:
            found: dict[str, str | None] = json.loads(output)
        except ValueError:
            problem = f"the probe ended with {process.returncode}"
            return {_WITH: problem, _WITHOUT: problem}
        return found


def probe(uid: int | None) -> dict[str, str | None]:
    """Return, by kind of jail, why there can be none; None: there can be.

    The process must have one thread.
    """
    return {
        _WITH: _obstacle(uid, ALL_NETWORK),
        _WITHOUT: _obstacle(uid, NO_NETWORK),
    }


def _obstacle(uid: int | None, network: str) -> str | None:
    if not seccomp.is_supported():
        return f"there is no filter of system calls for {MACHINE}"
    needed = landlock.FILES_SINCE if network == NO_NETWORK else landlock.SCOPES_SINCE
    version = landlock.version()
    if version < needed:
        what = "no Landlock" if version == 0 else f"Landlock {version}"
        return f"the kernel has {what}, and version {needed} is needed (Linux 6.12 has 6)"
    return _try(uid, network)


def _try(uid: int | None, network: str) -> str | None:
    """Enter a jail in a child, and return what came in the way."""
    read_end, write_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _enter(uid, network, parent, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as reader:
        told = reader.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return None if told == "entered" else told or "a process that tries it ends without a word"


def _enter(uid: int | None, network: str, parent: int, fd: int) -> None:
    try:
        become(uid)
        jail = entering.Jail(readable=(), writable=(), has_network=network != NO_NETWORK)
        entering.move_in(jail, parent_pid=parent)
        control_process(_SET_NO_NEW_PRIVS, 1)
        entering.lock(jail)
        os.write(fd, b"entered")
    except OSError as error:
        os.write(fd, (error.strerror or str(error)).encode())
    finally:
        os._exit(0)


def main() -> None:
    """Print what the machine can give."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uid", type=int, default=None)
    sys.stdout.write(json.dumps(probe(parser.parse_args().uid)) + "\n")


if __name__ == "__main__":
    main()
