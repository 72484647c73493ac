"""Disks that a test can fill: a small file system in place of one folder, seen by one platform.

It is mounted in a mount namespace of the platform's own, as root or, where the kernel allows that,
as anybody. From outside it is reached through `/proc/<pid>/root`.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.e2e.installation import Platform, platform

_PIECE_BYTES: Final = 4096
_IS_ROOT: Final = os.geteuid() == 0
_UNSHARE: Final = ("unshare", "--mount", *(() if _IS_ROOT else ("--user", "--map-root-user")))
# Such a root has no user ids to give away.
_MOUNT: Final = """
mount -t tmpfs -o size="$1"m,mode=0700 none "$2" || exit
if [ "$3" != 0 ]; then export FLUVIAL_INSTANCE_UIDS=off; fi
shift 3; exec "$@"
"""


def can_mount() -> bool:
    """Whether this machine lets us mount anything."""
    attempt = [*_UNSHARE, "mount", "-t", "tmpfs", "none", "/tmp"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


@contextmanager
def platform_on_small_disk(home: Path, folder: str, mib: int) -> Generator[tuple[Platform, Path]]:
    """Run a platform whose home has a disk of its own at `folder`; yield both, seen from inside."""
    place = home / folder
    place.mkdir(parents=True)
    mount = ("sh", "-c", _MOUNT, "sh", str(mib), str(place), str(int(not _IS_ROOT)))
    command = (*_UNSHARE, *mount, sys.executable, "-m", "fluvial_deploy")
    with platform(home, command=command) as running:
        inside = Path(f"/proc/{running.process.pid}/root{home}")
        yield replace(running, home=inside), inside / folder


def fill(disk: Path, *, leave_mib: int = 0) -> Path:
    """Fill a disk but for `leave_mib`; return the file to remove."""
    filler = disk / "filler"
    found = os.statvfs(disk)
    size = found.f_bavail * found.f_frsize - leave_mib * 2**20
    with filler.open("wb", buffering=0) as out:
        os.posix_fallocate(out.fileno(), 0, size)
        out.seek(size)
        try:
            while leave_mib == 0:
                out.write(bytes(_PIECE_BYTES))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return filler
