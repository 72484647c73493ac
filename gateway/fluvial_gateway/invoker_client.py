"""The gateway's connection to the invoker of this machine.

Connecting is what starts the invoker: its socket is held by the supervisor. When it has idled out,
the connection ends, and the next request dials again. A request that meets the very end of an
invoker hears nothing back; it is sent once more on a new connection, because every request here is
safe to repeat (a second ACQUIRE at worst starts an instance that idles out).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast

from fluvial import wire
from fluvial.errors import FluvialError, UnavailableError, WireError
from fluvial.manifest import DeploymentSpec
from fluvial.wire import FrameType
from fluvial_gateway.keyrings import KeyringOperation, KeyringState

logger = logging.getLogger(__name__)

DEFAULT_SECONDS: Final = 10.0
KEYRING_SECONDS: Final = 60.0  # instances may have to end first, and a key service to answer
_DIALS: Final = 3  # of one request, while invokers end before they answer


class RefusedError(FluvialError):
    """The invoker refused; `reason` is its code, e.g. `bundle_missing` or `capacity`."""

    code: ClassVar[str] = "refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class InvokerLostError(UnavailableError):
    """The connection to the invoker ended before it answered."""

    code = "invoker_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """An instance that may be dialled."""

    instance: str
    address: str
    credential: bytes
    tier: str  # warm | snapshot | zygote | spawn
    phases_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Survey:
    """What runs on the invoker's machine, as the invoker's maps say it."""

    instances: list[dict[str, Any]]
    zygotes: list[dict[str, Any]]
    snapshots: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class InvokerClient:
    """Asks the invoker, each question with a deadline; tells of instances that ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: _Connection | None = None
        self._dialling = asyncio.Lock()
        self._on_dead: list[Callable[[str, str], None]] = []
        self._on_logged: list[Callable[[str], None]] = []
        self._watched: list[str] = []

    def subscribe(self, on_dead: Callable[[str, str], None]) -> None:
        """Call `on_dead(instance, reason)` for each instance that ends from now on."""
        self._on_dead.append(on_dead)

    def subscribe_logs(self, on_logged: Callable[[str], None]) -> None:
        """Call `on_logged(app)` when the log of a watched app has grown, or may have."""
        self._on_logged.append(on_logged)

    def watch_logs(self, apps: Sequence[str]) -> None:
        """Watch the logs of these apps, in place of those watched before; an invoker that does
        not run writes none, and is told when it does."""
        self._watched = list(apps)
        if self._connection is not None:
            self._connection.send(wire.pack(FrameType.WATCH_LOGS, 0, self._watched))

    async def acquire(
        self,
        spec: DeploymentSpec,
        exclude: Sequence[str],
        *,
        deadline_seconds: float = DEFAULT_SECONDS,
        alone: bool = False,
    ) -> Acquired:
        """Return an instance of the deployment that is not in `exclude`, started if need be;
        `alone`: a fresh one that nobody else is handed.

        Raises:
            RefusedError: there will be none; its `reason` says why.
            UnavailableError: the invoker cannot be reached or did not answer in time.
        """
        fields = (spec.to_dict(), list(exclude), alone)
        answer = await self._ask(FrameType.ACQUIRE, fields, FrameType.ACQUIRED, deadline_seconds)
        instance, address, credential, tier, phases_ms = _fields(answer, 5)
        return Acquired(
            instance=instance,
            address=address,
            credential=credential,
            tier=tier,
            phases_ms=phases_ms,
        )

    async def keyring(
        self,
        app: str,
        operation: KeyringOperation = "list",
        key_id: str = "",
        *,
        deadline_seconds: float = KEYRING_SECONDS,
    ) -> KeyringState:
        """Return an app's keyring after an operation on it; its first key is made if it has none.

        Raises:
            RefusedError: it was not done; its `reason` says why.
            UnavailableError: the invoker cannot be reached or did not answer in time.
        """
        fields = (app, operation, key_id)
        answer = await self._ask(
            FrameType.KEYRING, fields, FrameType.KEYRING_STATE, deadline_seconds
        )
        state, ended = _fields(answer, 2)
        return KeyringState.from_frame(app, state, ended)

    async def survey(self, *, deadline_seconds: float = DEFAULT_SECONDS) -> Survey:
        """Return what runs; an invoker that is not running is not started for it."""
        if self._connection is None:
            return Survey([], [])
        answer = await self._ask(FrameType.SURVEY, (), FrameType.SURVEYED, deadline_seconds)
        return Survey(*_fields(answer, 3))

    def kill(self, instance: str, grace_ms: int) -> None:
        """End an instance: SIGTERM, and SIGKILL after the grace. No answer but its death."""
        if self._connection is not None:  # without an invoker there is no instance
            self._connection.send(wire.pack(FrameType.KILL, 0, instance, grace_ms))

    def close(self) -> None:
        """Hang up; what is still asked fails with `InvokerLostError`."""
        if self._connection is not None:
            self._connection.close()

    async def _ask(
        self, question: FrameType, fields: tuple[object, ...], answer: FrameType, seconds: float
    ) -> list[Any]:
        try:
            async with asyncio.timeout(seconds):
                header = await self._ask_again_when_lost(question, fields)
        except TimeoutError as error:
            raise UnavailableError(f"the invoker did not answer within {seconds} s") from error
        if header[0] == FrameType.REFUSED:
            reason, message = _fields(header, 2)
            raise RefusedError(str(reason), str(message))
        if header[0] != answer:
            raise WireError(f"the invoker answered {question.name} with a frame {header[0]}")
        return header

    async def _ask_again_when_lost(
        self, question: FrameType, fields: tuple[object, ...]
    ) -> list[Any]:
        for _ in range(_DIALS - 1):
            try:
                return await (await self._connected()).ask(question, fields)
            except InvokerLostError:
                logger.info("the invoker ended before it answered; dialling again")
        return await (await self._connected()).ask(question, fields)

    async def _connected(self) -> _Connection:
        async with self._dialling:
            if self._connection is None:
                loop = asyncio.get_running_loop()
                try:
                    _, connection = await loop.create_unix_connection(
                        lambda: _Connection(self._dead, self._logged, self._lost), self._path
                    )
                except OSError as error:
                    raise UnavailableError(f"the invoker cannot be reached: {error}") from error
                self._connection = connection
                self._watch_again(connection)
            return self._connection

    def _dead(self, instance: str, reason: str) -> None:
        for on_dead in self._on_dead:
            on_dead(instance, reason)

    def _logged(self, app: str) -> None:
        for on_logged in self._on_logged:
            on_logged(app)

    def _watch_again(self, connection: _Connection) -> None:
        if self._watched:
            connection.send(wire.pack(FrameType.WATCH_LOGS, 0, self._watched))
            for app in self._watched:
                self._logged(app)

    def _lost(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None


class _Connection(asyncio.Protocol):
    """One connection: many questions, told apart by id."""

    def __init__(
        self,
        on_dead: Callable[[str, str], None],
        on_logged: Callable[[str], None],
        on_lost: Callable[[_Connection], None],
    ) -> None:
        self._on_dead = on_dead
        self._on_logged = on_logged
        self._on_lost = on_lost
        self._reader = wire.FrameReader()
        self._transport: asyncio.Transport | None = None
        self._last_id = 0
        self._asked: dict[int, asyncio.Future[list[Any]]] = {}
        self._ended = False

    async def ask(self, question: FrameType, fields: tuple[object, ...]) -> list[Any]:
        self._last_id = question_id = self._last_id + 1
        self.send(wire.pack(question, question_id, *fields))
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked[question_id] = future
        try:
            return await future
        finally:
            self._asked.pop(question_id, None)

    def send(self, frame: bytes) -> None:
        if self._transport is None or self._ended:
            raise InvokerLostError("the connection to the invoker has ended")
        self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for header, _ in self._reader.feed(data):
                self._take(header)
        except WireError as error:
            logger.error("the invoker broke the protocol", extra={"reason": str(error)})
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._on_lost(self)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(InvokerLostError("the invoker ended before it answered"))

    def _take(self, header: list[Any]) -> None:
        if header[0] == FrameType.DEAD:
            instance, reason = _fields(header, 2)
            self._on_dead(str(instance), str(reason))
            return
        if header[0] == FrameType.LOGGED:
            (app,) = _fields(header, 1)
            self._on_logged(str(app))
            return
        future = self._asked.get(header[1])  # none: the asker has given up
        if future is not None and not future.done():
            future.set_result(header)


def _fields(header: list[Any], count: int) -> list[Any]:
    fields = header[2 : 2 + count]
    if len(fields) < count:
        raise WireError(f"a frame {header[0]} of the invoker lacks fields")
    return fields
