"""The process of one snapshot, as the invoker sees it: its descriptors, its log, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from fluvial.wire import pack
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.forkers import Forker
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instance.control import ControlType
from fluvial_invoker.instances import write_keys
from fluvial_invoker.keyring import LoadedKeys
from fluvial_invoker.log_pipes import LogPipe, Origin, read_available

_READ_AT_ONCE_BYTES: Final = 256 * 1024


class Snapshot(Forker):
    """One snapshot."""

    def __init__(
        self,
        certificate: BirthCertificate,
        logs: AppLogs,
        *,
        on_child_exit: Callable[[int, int], None],
    ) -> None:
        super().__init__(on_child_exit=on_child_exit)
        spec = certificate.deployment
        self.deployment = spec.deployment
        self._certificate = certificate
        self._logs = logs
        self._app = spec.app
        origin = Origin(deployment=spec.deployment, instance=certificate.instance)
        self._log = LogPipe(origin, logs.take(spec.app), monotonic=time.monotonic)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, self._control_of_snapshot = socket.socketpair()
        self._log_reader, self._log_writer = os.pipe()
        os.set_blocking(self._log_reader, False)
        self._transport: asyncio.Transport | None = None
        self._pidfd: int | None = None
        self._is_retired = False

    async def open(self, keys: LoadedKeys | None) -> tuple[int, int, int]:
        """Write its certificate; return the descriptors that it gets. With `keys` a child of it,
        which opens the environment, is given these when it asks."""
        if self._certificate.uid is not None:
            os.fchown(self._log_writer, self._certificate.uid, self._certificate.uid)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._log_reader, self._read_log)
        transport, _ = await loop.create_unix_connection(lambda: _KeyDesk(keys), sock=self._control)
        self._transport = transport
        transport.write(pack(ControlType.BIRTH, 0, body=self._certificate.encode()))
        return self._theirs.fileno(), self._log_writer, self._control_of_snapshot.fileno()

    def close_theirs(self) -> None:
        """Close its ends here: it has its own copies, or will never need them."""
        self._theirs.close()
        os.close(self._log_writer)
        self._control_of_snapshot.close()

    def started(self, pid: int) -> None:
        """The process exists."""
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._pidfd = os.pidfd_open(pid)
        self.attach(pid, self._ours)

    def abandon(self) -> None:
        """There is no process after all."""
        self._ours.close()
        self._close_log()

    @property
    def is_used(self) -> bool:
        """Whether instances live that would end with it, or are about to."""
        return bool(self.children or self._answers)

    def retire(self) -> None:
        """End it as soon as it is not used."""
        self._is_retired = True
        if not self.is_used:
            self.close()

    def close(self) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def ended(self, exit_code: int) -> None:
        super().ended(exit_code)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self._close_log()

    def _child_ended(self, pid: int, exit_code: int) -> None:
        super()._child_ended(pid, exit_code)
        if self._is_retired and not self.is_used:
            self.close()

    def _read_log(self) -> None:
        if not read_available(self._log_reader, self._log.feed, at_most=_READ_AT_ONCE_BYTES):
            asyncio.get_running_loop().remove_reader(self._log_reader)

    def _close_log(self) -> None:
        read_available(self._log_reader, self._log.feed, at_most=_READ_AT_ONCE_BYTES)
        self._log.end()
        asyncio.get_running_loop().remove_reader(self._log_reader)
        os.close(self._log_reader)
        if self._transport is not None:
            self._transport.abort()
        self._logs.release(self._app)


class _KeyDesk(asyncio.Protocol):
    """Gives the keys out once, to whoever asks first: before the app's code is there to ask."""

    def __init__(self, keys: LoadedKeys | None) -> None:
        self._keys = keys
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        keys, self._keys = self._keys, None
        if keys is None or self._transport is None:
            return
        if not write_keys(self._transport, keys):
            self._transport.abort()  # what waits there could not be erased
