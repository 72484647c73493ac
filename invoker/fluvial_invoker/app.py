"""The invoker, put together.

It lives while there is something to do: when no instance has existed for `idle_seconds` it ends,
and with it the zygotes; whoever holds its listening socket starts it again for the next gateway.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from fluvial.log_files import apps_folder
from fluvial.manifest import DeploymentSpec
from fluvial.runtime_path import runtime_folder
from fluvial.unprivileged import Identities, choose_identities
from fluvial_invoker import memory
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.config import Config
from fluvial_invoker.fleet import Acquired, Fleet, Places
from fluvial_invoker.gateways import Gateways
from fluvial_invoker.key_changes import KeyChanges
from fluvial_invoker.keyring import Keyring
from fluvial_invoker.kms import KmsCommand
from fluvial_invoker.log_notices import LogNotices

SNAPSHOT_SHARE: Final = 0.125  # of memory, where the operator says nothing
_MARGIN_SECONDS: Final = 10.0  # beyond the grace of instances, for everything to end

_log = logging.getLogger(__name__)


async def run(config: Config) -> None:
    """Serve gateways until SIGTERM or until idle for long enough."""
    app = App(config)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, app.stop, "terminated")
    loop.add_signal_handler(signal.SIGINT, app.stop, "interrupted")
    await app.serve(socket.socket(fileno=config.listener_fd))


class App:
    """What gateways ask for, and when to stop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        kms = KmsCommand(config.kms_command) if config.kms_command else None
        self._keyring = Keyring(config.home / "keyring", kms)
        runtime_path = runtime_folder(config.home)
        identities = choose_identities(os.environ, config.home)
        _tell_identities(identities)
        self._gateways = Gateways(self)
        self._log_notices = LogNotices(self._gateways.is_watched, self._gateways.tell_logged)
        self._fleet = Fleet(
            Places(
                home=config.home,
                run_dir=config.run_dir,
                runtime_path=runtime_path,
            ),
            self._keyring,
            identities=identities,
            grace_seconds=config.grace_seconds,
            snapshot_bytes=_snapshot_bytes(config),
            on_dead=self._gateways.tell_dead,
            on_change=self._watch_idleness,
            logs=AppLogs(
                apps_folder(config.home),
                limits=config.log_limits,
                on_written=self._log_notices.written,
            ),
        )
        self._key_changes = KeyChanges(self._keyring, self._fleet)
        self._requests: set[asyncio.Task[None]] = set()
        self._stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._idle_timer: asyncio.TimerHandle | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Serve until told to stop, then stop in order."""
        _prepare_sockets(self._config.run_dir / "i")
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        # Not create_unix_server: from Python 3.13 on that removes the supervisor's socket file.
        server = await loop.create_server(self._gateways.new_connection, sock=listener)
        _log.info("invoker ready", extra={"pid": os.getpid()})
        self._watch_idleness()
        reason = await self._stopped
        _log.info("invoker stops", extra={"reason": reason})
        # 1. Refuse: new connections wait for the next invoker, requests here are refused.
        server.close()
        # 2. End the instances and the zygotes, 3. answer what is still asked, 4. close.
        async with asyncio.timeout(self._config.grace_seconds + _MARGIN_SECONDS):
            await self._fleet.close()
            await asyncio.gather(*self._requests)
        self._log_notices.close()
        self._gateways.close()

    def stop(self, reason: str) -> None:
        """End `serve`; the first reason stands."""
        if not self._stopped.done():
            self._stopped.set_result(reason)

    # What gateways ask for

    async def acquire(
        self, spec: DeploymentSpec, exclude: list[str], /, *, alone: bool
    ) -> Acquired:
        return await self._fleet.acquire(spec, exclude, alone=alone)

    async def keyring(self, app: str, operation: str, key_id: str, /) -> tuple[dict[str, Any], int]:
        return await self._key_changes.carry_out(app, operation, key_id)

    def kill(self, instance: str, grace_seconds: float, /) -> None:
        self._fleet.kill(instance, grace_seconds)

    def survey(self) -> tuple[list[dict[str, Any]], ...]:
        return self._fleet.survey()

    def own(self, request: Coroutine[Any, Any, None], /) -> None:
        """Run a request to its end, whatever becomes of the connection it came by."""
        task = asyncio.get_running_loop().create_task(request)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def _watch_idleness(self) -> None:
        """The number of instances has changed: keep one deadline exactly while there is none."""
        if len(self._fleet):
            if self._idle_timer is not None:
                self._idle_timer.cancel()
                self._idle_timer = None
        elif self._idle_timer is None:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._config.idle_seconds, self.stop, "idle")


def _snapshot_bytes(config: Config) -> int:
    if config.snapshot_bytes is not None:
        return config.snapshot_bytes
    return int(memory.total_bytes() * SNAPSHOT_SHARE)


def _tell_identities(identities: Identities) -> None:
    if identities.are_used:
        _log.info(
            "apps have users of their own",
            extra={"first_uid": identities.first, "last_uid": identities.last},
        )
    elif os.geteuid() == 0:
        _log.warning("apps run as root", extra={"reason": identities.reason})


def _prepare_sockets(folder: Path) -> None:
    """Make the folder, and remove what an invoker that was killed has left: its instances died."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob("ins_*.sock"):
        path.unlink(missing_ok=True)
