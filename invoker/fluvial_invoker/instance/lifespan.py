"""ASGI's lifespan: start-up before the first request, shutdown after the last."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fluvial_invoker.instance.asgi import AsgiApp, Message
from fluvial_invoker.instance.loading import DeploymentError
from fluvial_invoker.instance.metering import instance_meter
from fluvial_invoker.instance.output import report, report_exception

STARTUP_SECONDS: Final = 60.0
_ASGI_VERSIONS: Final = {"version": "3.0", "spec_version": "2.0"}


class Lifespan:
    """Runs the lifespan protocol of one app in a task of its own."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._events: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}
        self.is_supported = True

    async def start(self) -> None:
        """Run the app's start-up.

        Raises:
            DeploymentError: the app says that its start-up failed, or it takes too long.
        """
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._events.put_nowait({"type": "lifespan.startup"})
        try:
            async with asyncio.timeout(STARTUP_SECONDS):
                await self._started.wait()
        except TimeoutError:
            raise DeploymentError(
                f"lifespan start-up took more than {STARTUP_SECONDS:g} s"
            ) from None
        if self._failure is not None:
            raise DeploymentError(f"lifespan start-up failed: {self._failure}")

    async def stop(self, timeout_seconds: float) -> None:
        """Run the app's shutdown, for at most `timeout_seconds`."""
        if self._task is None or self._task.done():
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._stopped.wait()
        except TimeoutError:
            report(f"lifespan shutdown took more than {timeout_seconds:g} s", instance_meter)
            self._task.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _ASGI_VERSIONS, "state": self.state}
        try:
            await self._app(scope, self._events.get, self._send)
        except Exception as error:  # noqa: BLE001 - user code; how it is taken depends on when
            if self._started.is_set():
                report_exception(error, instance_meter, "lifespan failed")
            else:
                # The protocol's way to say that an app does not know lifespan.
                self.is_supported = False
        finally:
            self._started.set()
            self._stopped.set()

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = str(message.get("message", ""))[:1000] or "no message"
                self._started.set()
            case "lifespan.shutdown.failed":
                report(f"lifespan shutdown failed: {message.get('message', '')}", instance_meter)
                self._stopped.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case other:
                raise ValueError(f"unknown lifespan message {other!r}")
