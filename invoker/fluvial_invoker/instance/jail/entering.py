"""The steps into a jail, in two parts: what needs the rights of a new namespace, and the locks."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

from fluvial.networks import NO_NETWORK, ports_of
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instance.confinement import die_with_parent, limit_tasks
from fluvial_invoker.instance.jail import landlock, mounts, namespaces, seccomp, warden

# What is in /tmp is in memory: it counts, where there is a limit for the instance as a whole.
PRIVATE_BYTES: Final = 64 * 1024 * 1024
MAX_PROCESSES: Final = 256  # and threads, besides one for each invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Jail:
    """What a jail leaves to who is in it."""

    readable: tuple[str, ...]  # folders, besides those of the system
    writable: tuple[str, ...]  # folders, besides /tmp and /dev/shm
    has_network: bool = True
    ports: tuple[int, ...] | None = None  # that may be dialled by TCP; None: all
    max_tasks: int = MAX_PROCESSES  # processes and threads


def jail_of(certificate: BirthCertificate) -> Jail | None:
    """Return the jail that an instance is to enter, None for one of another tier."""
    settings = certificate.deployment.instance
    if settings.isolation != "jail":
        return None
    folders = (certificate.bundle_path, certificate.layer_path, certificate.runtime_path)
    return Jail(
        readable=tuple(filter(None, folders)),
        writable=(certificate.user_folder,) if certificate.user_folder else (),
        has_network=settings.network != NO_NETWORK,
        ports=ports_of(settings.network),
        max_tasks=settings.max_concurrency + MAX_PROCESSES,
    )


def move_in(jail: Jail, *, parent_pid: int) -> None:
    """Move into namespaces and a root of its own. Returns in another process: see `warden`.

    The process must have one thread, and be the user that it is to stay. It dies with its parent.

    Raises:
        OSError: the kernel, or a policy of the machine, refuses.
    """
    sys.executable = os.path.realpath(sys.executable)  # the way there by links will be gone
    namespaces.separate(has_network=jail.has_network)
    die_with_parent(parent_pid)
    warden.fork_inside()
    mounts.change_root(readable=jail.readable, writable=jail.writable, private_bytes=PRIVATE_BYTES)
    namespaces.drop_capabilities()
    os.environ.pop("TMPDIR", None)


def lock(jail: Jail) -> None:
    """Give up all that code in a jail does not need. Needs `no_new_privs`.

    Raises:
        OSError: the kernel refuses.
    """
    limit_tasks(jail.max_tasks)
    landlock.restrict(
        readable=("/",),
        writable=(*mounts.PRIVATE, *mounts.DEVICES, *jail.writable),
        ports=jail.ports,
    )
    seccomp.install()
