"""One instance, as the invoker sees it.

Its control descriptor says what it does (ready, failed, retiring); its log pipe what it writes; its
zygote (or the invoker itself, for a spawned one) how it ended. It is over when it has ended *and*
everything that it has written before has been read, so that the reason is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import select
import signal
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, cast

from fluvial.encryption import KEY_BYTES
from fluvial.ends import KILLED, describe_end, end_of_process
from fluvial.errors import WireError
from fluvial.manifest import DeploymentSpec
from fluvial.wire import FrameReader, pack, pack_head
from fluvial_invoker import process_stats
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.births import Birth
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instance.control import ControlType
from fluvial_invoker.keyring import LoadedKeys
from fluvial_invoker.log_pipes import LogPipe, Origin, read_available
from fluvial_invoker.root_keys import wipe

MAX_REASON_CHARACTERS: Final = 4096
CREDENTIAL_BYTES: Final = 16
_READ_AT_ONCE_BYTES: Final = 256 * 1024  # of a log pipe, before others get their turn
_LAST_WORDS_SECONDS: Final = 2.0
_MAX_PHASES: Final = 16

_log = logging.getLogger(__name__)


class State(Enum):
    """How far an instance has come."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # takes nothing new
    ENDED = "ended"


class Instance(asyncio.Protocol):
    """One instance; also the protocol of its control connection."""

    def __init__(
        self,
        instance_id: str,
        spec: DeploymentSpec,
        birth: Birth,
        logs: AppLogs,
        *,
        on_wanted: Callable[[Instance], None],
        on_ready: Callable[[Instance], None],
        is_alone: bool = False,
    ) -> None:
        self.id = instance_id
        self.is_alone = is_alone  # for one gateway and one invocation
        self.spec = spec
        self.address = str(birth.path)
        self.state = State.STARTING
        self.tier = ""
        self.pid = 0
        self.phases_ms: dict[str, float] = {}
        self.born: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self._birth = birth
        self._logs = logs
        self._on_wanted = on_wanted
        self._on_ready = on_ready
        origin = Origin(deployment=spec.deployment, instance=instance_id)
        self._log = LogPipe(origin, logs.take(spec.app), monotonic=time.monotonic)
        self._reader = FrameReader()
        self._control: asyncio.Transport | None = None
        self._control_closed = asyncio.Event()
        self._failure: str | None = None
        self._was_ready = False
        self._is_released = False
        self._retiring_reason = "exit:0"
        self._started_at = time.monotonic()
        self._killer: asyncio.TimerHandle | None = None
        self._pidfd: int | None = None

    @property
    def accepts(self) -> bool:
        """Whether a gateway may be given this instance."""
        return self.state in (State.STARTING, State.READY) and not self._has_died()

    def _has_died(self) -> bool:
        """Ask the kernel: a gateway may hear of a death before its zygote has told of it."""
        if self._pidfd is None:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def open(self, certificate: BirthCertificate, keys: Callable[[], LoadedKeys]) -> None:
        """Start to listen to it, and write its keys and its certificate; before the process exists.

        `keys` is asked when they are written, so that no change of them comes between.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(self._birth.log_reader, self._read_log)
        transport, _ = await loop.create_unix_connection(lambda: self, sock=self._birth.control)
        self._control = transport
        self.send_keys(keys())
        transport.write(pack(ControlType.BIRTH, 0, body=certificate.encode()))

    def started(self, pid: int, tier: str, phases_ms: dict[str, float]) -> None:
        """The process exists."""
        self.pid = pid
        self.tier = tier
        self.phases_ms = phases_ms
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._pidfd = os.pidfd_open(pid)
        self.born.set_result(None)

    def fail(self, reason: str) -> None:
        """It cannot be started; this is the reason that gateways hear."""
        self.state = State.RETIRING
        self._failure = reason

    def new_credential(self) -> bytes:
        """Issue a credential; the instance knows it before the caller does."""
        credential = secrets.token_bytes(CREDENTIAL_BYTES)
        if self._control is not None:
            self._control.write(pack(ControlType.CREDENTIAL, 0, credential))
        return credential

    def send_keys(self, keys: LoadedKeys) -> None:
        """Tell it the app's keys as they are now, and leave no copy of them."""
        if self._control is not None and not write_keys(self._control, keys):
            # It does not read its socket, and the copy that waits there cannot be erased.
            self._send_signal(signal.SIGKILL)

    def terminate(self, grace_seconds: float, reason: str | None = None) -> None:
        """Ask it to end, and kill it after the grace; with `reason`, that is why it has ended."""
        if self.state is not State.ENDED:
            self._failure = self._failure or reason
            self.state = State.RETIRING
            self._send_signal(signal.SIGTERM)
            self._kill_in(grace_seconds)

    async def ended(self, exit_code: int | None) -> str:
        """Close everything; return the reason. `exit_code` None: nobody saw the end."""
        self.state = State.ENDED
        if self._killer is not None:
            self._killer.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._control_closed.wait()
        read_available(self._birth.log_reader, self._log.feed, at_most=_READ_AT_ONCE_BYTES)
        self._log.end()
        reason = self._reason(exit_code)
        self._tell_ended(reason)
        self._close()
        self.over.set()
        return reason

    def survey(self) -> dict[str, Any]:
        """Return what SURVEYED says about this instance."""
        is_jailed = self.spec.instance.isolation == "jail"
        working = process_stats.only_child(self.pid) if is_jailed else self.pid
        return {
            "instance": self.id,
            "deployment": self.spec.deployment,
            "app": self.spec.app,
            "pid": self.pid,
            "tier": self.tier,
            "started_ms_ago": int((time.monotonic() - self._started_at) * 1000),
            "rss_bytes": process_stats.rss_bytes(working),
            "cpu_us": process_stats.cpu_us(working),
            "state": self.state.value,
        }

    # What its control connection says

    def data_received(self, data: bytes) -> None:
        try:
            for header, _ in self._reader.feed(data):
                self._frame(header)
        except (WireError, LookupError) as error:
            _log.warning("an instance broke the control protocol", extra={"instance": self.id})
            self._failure = self._failure or f"control protocol: {error}"
            self._send_signal(signal.SIGKILL)

    def connection_lost(self, exc: Exception | None) -> None:
        self._control = None
        self._control_closed.set()
        if self.state is not State.ENDED:
            # It is ending, or its code has closed descriptors that are not its own.
            self._kill_in(_LAST_WORDS_SECONDS)

    def _kill_in(self, seconds: float) -> None:
        if self._killer is None:
            loop = asyncio.get_running_loop()
            self._killer = loop.call_later(seconds, self._kill)

    def _kill(self) -> None:
        if self._was_ready:  # else its log says why
            self._failure = self._failure or KILLED
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: int) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _frame(self, header: list[Any]) -> None:
        match header[0]:
            case ControlType.READY if self.state is State.STARTING:
                self.state = State.READY
                self._was_ready = True
                _log.info("instance ready", extra={"instance": self.id, "phases_ms": header[2]})
                self._tell_ready(header[2])
                self._on_ready(self)
            case ControlType.FAILED:
                self.state = State.RETIRING
                self._failure = f"import_failed: {str(header[2])[-MAX_REASON_CHARACTERS:]}"
            case ControlType.RETIRING:
                self.state = State.RETIRING
                self._retiring_reason = str(header[2])[:100]
                if self._control is not None and not self._is_released:
                    self._is_released = True
                    self._control.write(pack(ControlType.RELEASED, 0))
            case ControlType.WANTED:
                self._on_wanted(self)
            case ControlType.READY:
                pass  # told to end while it was starting
            case other:
                raise WireError(f"unknown control frame {other}")

    # What it writes

    def _read_log(self) -> None:
        if not read_available(self._birth.log_reader, self._log.feed, at_most=_READ_AT_ONCE_BYTES):
            asyncio.get_running_loop().remove_reader(self._birth.log_reader)

    def _tell_ready(self, phases_ms: object) -> None:
        told = cast("dict[object, object]", phases_ms if isinstance(phases_ms, dict) else {})
        phases: dict[str, float] = dict(self.phases_ms)
        for name, value in list(told.items())[:_MAX_PHASES]:
            if isinstance(value, int | float):  # whatever an instance says
                phases[str(name)] = value
        seconds = round(time.monotonic() - self._started_at, 3)
        fields = {"event": "ready", "tier": self.tier, "seconds": seconds, "phases_ms": phases}
        self._log.tell("info", f"instance ready after {seconds} s: {self.tier}", fields)

    def _tell_ended(self, reason: str) -> None:
        words = describe_end(reason)
        seconds = round(time.monotonic() - self._started_at, 3)
        fields = {"event": "ended", "reason": reason.partition("\n")[0], "seconds": seconds}
        message = f"the instance has ended: {words or fields['reason']}"
        is_well = words is None and ":" not in reason  # a code with a text is a failure
        self._log.tell("info" if is_well else "error", message, fields)

    def _close(self) -> None:
        """Close all descriptors and the socket's file."""
        asyncio.get_running_loop().remove_reader(self._birth.log_reader)
        os.close(self._birth.log_reader)
        if self._control is not None:
            self._control.abort()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self._birth.path.unlink(missing_ok=True)
        self._logs.release(self.spec.app)

    def _reason(self, exit_code: int | None) -> str:
        if self._failure is not None:
            return self._failure
        how = end_of_process(exit_code)
        if not self._was_ready:
            text = f"import_failed: {how} before it was ready\n{self._log.tail}"
            return text[:MAX_REASON_CHARACTERS]
        return self._retiring_reason if exit_code == 0 else how


def write_keys(control: asyncio.WriteTransport, keys: LoadedKeys) -> bool:
    """Write a KEYS frame, and overwrite the roots in it; false: not all of it was sent."""
    roots = bytearray(KEY_BYTES * len(keys.roots))
    for place, root in enumerate(keys.roots.values()):
        roots[place * KEY_BYTES : (place + 1) * KEY_BYTES] = root.material
    content = keys.content
    fields = (content.current, list(keys.roots), keys.destroyed, content.frozen_ms is not None)
    control.write(pack_head(ControlType.KEYS, 0, *fields, body_bytes=len(roots)))
    control.write(roots)
    wipe(roots)
    return control.get_write_buffer_size() == 0
