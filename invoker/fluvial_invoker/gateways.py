"""Connections from gateways: frames in, answers out; many requests at once, told apart by id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, cast

from fluvial.errors import FluvialError, WireError
from fluvial.manifest import DeploymentSpec
from fluvial.wire import FrameReader, FrameType, pack
from fluvial_invoker.fleet import Acquired, RefusedError
from fluvial_invoker.key_files import KeyringError

MAX_GRACE_MS: Final = 600_000

_log = logging.getLogger(__name__)


class Service(Protocol):
    """What gateways can ask for."""

    async def acquire(
        self, spec: DeploymentSpec, exclude: list[str], /, *, alone: bool
    ) -> Acquired: ...
    async def keyring(
        self, app: str, operation: str, key_id: str, /
    ) -> tuple[dict[str, Any], int]: ...
    def kill(self, instance: str, grace_seconds: float, /) -> None: ...
    def survey(self) -> tuple[list[dict[str, Any]], ...]: ...
    def own(self, request: Coroutine[Any, Any, None], /) -> None: ...


class Gateways:
    """All connected gateways."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connected: set[GatewayConnection] = set()

    def new_connection(self) -> GatewayConnection:
        return GatewayConnection(self._service, self._connected)

    def tell_dead(self, instance: str, reason: str) -> None:
        """Send DEAD to every gateway."""
        frame = pack(FrameType.DEAD, 0, instance, reason)
        for connection in self._connected:
            connection.write(frame)

    def is_watched(self, app: str) -> bool:
        """Whether a gateway wants to hear that an app's log has grown."""
        return any(app in connection.watched for connection in self._connected)

    def tell_logged(self, app: str) -> None:
        """Send LOGGED to the gateways that want to hear it."""
        frame = pack(FrameType.LOGGED, 0, app)
        for connection in self._connected:
            if app in connection.watched:
                connection.write(frame)

    def close(self) -> None:
        for connection in list(self._connected):
            connection.close()


class GatewayConnection(asyncio.Protocol):
    """One gateway."""

    def __init__(self, service: Service, connected: set[GatewayConnection]) -> None:
        self._service = service
        self._connected = connected
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.watched: frozenset[str] = frozenset()  # apps whose logs somebody follows there
        self._handlers: dict[int, Callable[[list[Any]], None]] = {
            FrameType.ACQUIRE: self._acquire,
            FrameType.KEYRING: self._keyring,
            FrameType.KILL: self._kill,
            FrameType.SURVEY: self._survey,
            FrameType.WATCH_LOGS: self._watch_logs,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connected.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connected.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            for header, _ in self._reader.feed(data):
                handler = self._handlers.get(header[0])
                if handler is None:
                    raise WireError(f"frame type {header[0]} does not belong to an invoker")
                handler(header)
        except (WireError, LookupError, TypeError, ValueError) as error:
            _log.warning("closing a gateway's connection", extra={"reason": repr(error)})
            self.close()

    def write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _acquire(self, header: list[Any]) -> None:
        spec = DeploymentSpec.from_dict(header[2])
        alone = len(header) > 4 and header[4] is True
        self._service.own(self._answer_acquire(header[1], spec, list(header[3]), alone=alone))

    async def _answer_acquire(
        self, number: int, spec: DeploymentSpec, exclude: list[str], *, alone: bool
    ) -> None:
        try:
            acquired = await self._service.acquire(spec, exclude, alone=alone)
        except RefusedError as error:
            self.write(pack(FrameType.REFUSED, number, error.reason, str(error)))
        except FluvialError as error:
            self.write(pack(FrameType.REFUSED, number, error.code, str(error)))
        except OSError as error:
            _log.exception("an instance could not be started")
            self.write(pack(FrameType.REFUSED, number, "start_failed", str(error)))
        else:
            fields = (acquired.address, acquired.credential, acquired.tier, acquired.phases_ms)
            self.write(pack(FrameType.ACQUIRED, number, acquired.instance, *fields))

    def _keyring(self, header: list[Any]) -> None:
        app, operation, key_id = map(str, header[2:5])
        self._service.own(self._answer_keyring(header[1], app, operation, key_id))

    async def _answer_keyring(self, number: int, app: str, operation: str, key_id: str) -> None:
        try:
            state, ended = await self._service.keyring(app, operation, key_id)
        except FluvialError as error:
            self.write(pack(FrameType.REFUSED, number, error.code, str(error)))
        except OSError as error:
            _log.exception("a keyring could not be changed")
            self.write(pack(FrameType.REFUSED, number, KeyringError.code, str(error)))
        else:
            self.write(pack(FrameType.KEYRING_STATE, number, state, ended))

    def _kill(self, header: list[Any]) -> None:
        grace_ms = min(max(0, int(header[3])), MAX_GRACE_MS)
        self._service.kill(header[2], grace_ms / 1000)

    def _watch_logs(self, header: list[Any]) -> None:
        self.watched = frozenset(map(str, header[2]))

    def _survey(self, header: list[Any]) -> None:
        self.write(pack(FrameType.SURVEYED, header[1], *self._service.survey()))
