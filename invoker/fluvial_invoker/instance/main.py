"""An instance, put together: load, start up, serve, drain, leave.

1. Import the deployment's modules (with the collector off: an import makes little garbage).
2. Run the app's lifespan start-up on a new event loop.
3. Serve gateways on the listening socket; what they sent before has been waiting in its backlog.
4. When idle for long enough, or told by SIGTERM: refuse new invocations, let those under way
   finish, cancel what is left at the deadline, close, run the lifespan shutdown, exit.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Coroutine
from typing import Any, Final

import uvloop

from fluvial.codec import set_compression
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instance.control import Control
from fluvial_invoker.instance.deadlines import Deadlines
from fluvial_invoker.instance.durable import complete_registry, install_guards, live_runs
from fluvial_invoker.instance.file_functions import file_functions
from fluvial_invoker.instance.functions import Functions
from fluvial_invoker.instance.idle import IdleWatch
from fluvial_invoker.instance.interfaces import asgi_app, invocation_class
from fluvial_invoker.instance.invocations import Admission
from fluvial_invoker.instance.lifespan import Lifespan
from fluvial_invoker.instance.links import Links
from fluvial_invoker.instance.loading import DeploymentError, Interface, LoadedApp, load
from fluvial_invoker.instance.loop_running import run_to_its_end
from fluvial_invoker.instance.metering import instance_meter, start_metering
from fluvial_invoker.instance.output import end_output, format_user_error, report
from fluvial_invoker.instance.readings import Readings
from fluvial_invoker.instance.reports import InvocationReports
from fluvial_invoker.instance.task_errors import attribute_task_errors
from fluvial_invoker.instance.thread_metering import (
    MeteredExecutor,
    meter_anyio_threads,
    meter_threads,
    waiting_for_anyio,
    widen_anyio,
)
from fluvial_invoker.instance.watchdog import Watchdog

EXIT_OK: Final = 0
EXIT_NOT_LOADED: Final = 71
EXIT_CRASHED: Final = 72
MAX_REASON_CHARACTERS: Final = 4096
_CANCEL_SECONDS: Final = 2.0  # for code to stop after it was cancelled
_LINGER_SECONDS: Final = 1.0  # for gateways to hear GOAWAY before the socket closes
_LIFESPAN_STOP_SECONDS: Final = 5.0
_MAX_THREADS: Final = 256
# Fewer, larger collections: what an import leaves behind is frozen, requests make little garbage.
_GC_THRESHOLDS: Final = (10_000, 20, 50)


def run_instance(certificate: BirthCertificate, control: Control, listener: socket.socket) -> int:
    """Serve until it is time to leave; return the exit status."""
    install_guards()
    meter_threads()
    gc.disable()
    try:
        app, import_ms = load(certificate.deployment)
        meter_anyio_threads()
    except BaseException as error:  # noqa: BLE001 - user code at a process boundary
        tell_not_loaded(control, error)
        return EXIT_NOT_LOADED
    gc.freeze()
    return run_loaded(certificate, control, listener, app, import_ms=import_ms)


def run_loaded(
    certificate: BirthCertificate,
    control: Control,
    listener: socket.socket,
    app: LoadedApp | None,
    *,
    import_ms: float,
) -> int:
    """Serve what has been imported; return the exit status."""
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    instance = Instance(certificate, control, listener, app, loop)
    return run_to_its_end(loop, instance.run(import_ms))


def tell_not_loaded(control: Control, error: BaseException) -> None:
    """Tell the app's log and the invoker why nothing will be served."""
    reason = describe(error)
    report(f"the deployment cannot be loaded\n{reason}", instance_meter)
    control.tell_failed(reason)


def describe(error: BaseException) -> str:
    """Return the end of a traceback, for the person who deployed."""
    if isinstance(error, DeploymentError):
        return str(error)[:MAX_REASON_CHARACTERS]
    return format_user_error(error)[-MAX_REASON_CHARACTERS:]


class Instance:
    """The parts of a running instance and the order in which they start and stop."""

    def __init__(
        self,
        certificate: BirthCertificate,
        control: Control,
        listener: socket.socket,
        app: LoadedApp | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        settings = certificate.deployment.instance
        self._certificate = certificate
        self._control = control
        self._listener = listener
        self._loop = loop
        self._reason: asyncio.Future[str] = loop.create_future()
        self._threads = min(settings.max_concurrency, _MAX_THREADS)
        self._executor = MeteredExecutor(self._threads, thread_name_prefix="invocation")
        self._default_executor = MeteredExecutor(thread_name_prefix="default")
        self._interface: Interface | None = None if app is None else app.interface
        self._app = asgi_app(app, self._executor, memory_bytes=settings.memory_bytes)
        self._files = file_functions(certificate.deployment, self._executor)
        self._in_threads = app is not None and not app.is_async
        self._http_class = invocation_class(app, settings.on_disconnect)
        self._lifespan = Lifespan(self._app) if app and app.interface == "asgi" else None
        self._admission = Admission(
            loop,
            IdleWatch(loop, settings.idle_seconds, lambda: self._leave("idle")),
            Deadlines(loop),
            # What blocks needs a thread for itself: more than there are would only wait in here.
            max_concurrency=self._threads if self._in_threads else settings.max_concurrency,
            on_over=InvocationReports(loop) if settings.log_invocations else None,
        )
        self._watchdog = Watchdog(
            loop,
            self._admission,
            self._admission.limit,
            Readings(settings.memory_bytes),
            waiting_for_thread=self._waiting_for_thread,
            on_worn=self._leave,
        )

    async def run(self, import_ms: float) -> int:
        """Start up, serve, leave; return the exit status."""
        start_metering(self._loop)
        attribute_task_errors(self._loop)
        self._loop.set_default_executor(self._default_executor)
        await widen_anyio(self._threads)
        self._loop.add_signal_handler(signal.SIGTERM, self._leave, "terminated")
        started = time.monotonic()
        try:
            if self._lifespan is not None:
                await self._lifespan.start()
        except DeploymentError as error:
            self._control.tell_failed(describe(error))
            return EXIT_NOT_LOADED
        startup_ms = (time.monotonic() - started) * 1000
        await self._serve({"import": round(import_ms, 2), "startup": round(startup_ms, 2)})
        return EXIT_OK

    async def _serve(self, phases_ms: dict[str, float]) -> None:
        spec = self._certificate.deployment
        keys = self._control.app_keys(spec.app)
        set_compression(spec.instance.compression)
        complete_registry()
        has_state = self._lifespan is not None and self._lifespan.is_supported
        functions = Functions(
            app=self._app,
            http_class=self._http_class,
            interface=self._interface,
            files=self._files,
            state=self._lifespan.state if self._lifespan and has_state else None,
            runs=live_runs(keys, self._executor),
            keys=keys,
            deployment=spec.deployment,
            instance=self._certificate.instance,
            loop=self._loop,
        )
        links = Links(
            instance=self._certificate.instance,
            functions=functions,
            admission=self._admission,
            credentials=self._control,
            on_unfit=self._leave,
            import_ms=round(phases_ms["import"]),
            watchdog=self._watchdog,
        )
        self._control.attach(
            self._loop, on_credential=self._admission.touch, on_released=links.released
        )
        server = await self._loop.create_unix_server(links.new_link, sock=self._listener)
        self._control.tell_ready(phases_ms)
        self._watchdog.start()
        self._admission.heed(self._watchdog)
        self._admission.touch()
        reason = await self._reason
        await self._drain(links, reason)
        server.close()
        if self._lifespan is not None:
            await self._lifespan.stop(_LIFESPAN_STOP_SECONDS)
        if self._files is not None:
            await self._files.stop(_LIFESPAN_STOP_SECONDS)
        end_output(instance_meter)

    def _waiting_for_thread(self) -> int:
        return self._executor.waiting + self._default_executor.waiting + waiting_for_anyio()

    def _leave(self, reason: str) -> None:
        if not self._reason.done():
            self._reason.set_result(reason)

    async def _drain(self, links: Links, reason: str) -> None:
        # 1. Refuse: gateways that hear of it send their work elsewhere, late frames get a NACK.
        self._admission.drain()
        links.go_away(reason)
        self._control.tell_retiring(reason)
        # 2. Let what is under way finish. 3. Cancel the rest.
        if not await _within(self._certificate.grace_seconds, self._admission.wait_until_empty()):
            self._admission.cancel_all()
            await _within(_CANCEL_SECONDS, self._admission.wait_until_empty())
        # 4. Nobody may be about to send: each gateway has closed its link, none is about to dial.
        await _within(_LINGER_SECONDS, links.wait_until_unwanted())


async def _within(seconds: float, waiting: Coroutine[Any, Any, None]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True
