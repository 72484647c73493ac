"""The supervisor: store, gateway, invoker and builder as one thing that starts and stops.

Invariants:
- One supervisor per home (a lock that dies with it).
- It holds every listening socket, so a program that is started again misses no connection and the
  invoker and the builder exist only while somebody needs them.
- Nothing ticks: it waits for ends of processes, readable sockets and signals.
- Stopping, in this order: the gateway (drains, releases its leases), the invoker (its instances),
  the builder, the store last. A second interrupt turns every wait into a kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from fluvial_deploy.up import programs
from fluvial_deploy.up.home import Home
from fluvial_deploy.up.keeping import Keeper, Tell
from fluvial_deploy.up.listeners import ListenError, listen_tcp, listen_unix, url_of
from fluvial_deploy.up.predecessors import wait_for_predecessor
from fluvial_deploy.up.programs import Sockets
from fluvial_deploy.up.settings import UpSettings
from fluvial_deploy.up.store_keeping import StoreKeeper
from fluvial_queue.redis.embedded import EmbeddedValkey

_STORE_STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a running installation says about itself."""

    pid: int
    http: str
    control: str
    home: str
    store: str
    durability: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Supervisor:
    """Runs one installation until it is told to stop."""

    def __init__(
        self, settings: UpSettings, *, tell: Tell, ready: Callable[[Running], None]
    ) -> None:
        self._settings = settings
        self._home = Home(settings.home)
        self._tell = tell
        self._ready = ready
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    def stop(self) -> None:
        """Have `run` stop everything in order and end, if it is not about to."""
        self._stop.set()

    async def wait_until_stopping(self) -> None:
        """Wait until it was told to stop."""
        await self._stop.wait()

    async def run(self) -> None:
        """Start everything, keep it running, and stop it in order.

        Raises:
            FluvialError: something does not start, or dies again and again.
        """
        self._home.prepare()
        lock = self._home.lock()
        try:
            self._watch_signals()
            async with AsyncExitStack() as stopping:
                await self._run(stopping)
        finally:
            self._home.leave(lock)

    async def _run(self, stopping: AsyncExitStack) -> None:
        """What is pushed on `stopping` last is stopped first."""
        sockets = await self._listen()
        stopping.callback(sockets.close)
        store_url, keep_store = await self._start_store(stopping)
        settings, home = self._settings, self._home
        builder = Keeper(programs.builder(settings, home, sockets), self._tell)
        invoker = Keeper(programs.invoker(settings, home, sockets), self._tell)
        running = self._running(sockets)
        gateway = Keeper(
            programs.gateway(settings, home, sockets, store_url),
            self._tell,
            lambda pid: home.write_state({**running.to_dict(), "gateway": pid}),
        )
        for keeper in (builder, invoker, gateway):
            stopping.push_async_callback(keeper.stop, self._force)
        await self._keep(gateway.start_ready())
        if self._stop.is_set():
            return
        self._ready(running)
        await self._keep(
            keep_store(),
            gateway.keep_resident(),
            invoker.keep_on_demand(sockets.invoker),
            builder.keep_on_demand(sockets.builder),
        )

    async def _keep(self, *keeping: Coroutine[Any, Any, None]) -> None:
        """Run until told to stop, or until a keeper gives up."""
        tasks = [asyncio.create_task(coroutine) for coroutine in keeping]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
        finally:
            for task in (stopped, *tasks):
                task.cancel()
            await asyncio.gather(stopped, *tasks, return_exceptions=True)

    async def _listen(self) -> Sockets:
        try:
            return self._bind()
        except ListenError as error:
            if not error.is_in_use or not await wait_for_predecessor(self._home, self._tell):
                raise
        return self._bind()

    def _bind(self) -> Sockets:
        http = listen_tcp(self._settings.http)
        try:
            control = listen_tcp(self._settings.control)
        except ListenError:
            http.close()
            raise
        run = self._home.run_dir
        return Sockets(
            http, control, listen_unix(run / "invoker.sock"), listen_unix(run / "builder.sock")
        )

    async def _start_store(
        self, stopping: AsyncExitStack
    ) -> tuple[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return the store's URL and what keeps it running."""
        if self._settings.store is not None:
            return self._settings.store, _for_ever
        folder = self._home.path / "store"
        store = EmbeddedValkey(
            folder,
            durability=self._settings.durability,
            socket_path=self._home.run_dir / "valkey.sock",
            log_path=self._home.log("valkey"),
        )
        await store.start()
        stopping.push_async_callback(store.stop, seconds=_STORE_STOP_SECONDS)
        keeper = StoreKeeper(store, folder, log=self._home.log("valkey"), tell=self._tell)
        return store.url, keeper.keep

    def _running(self, sockets: Sockets) -> Running:
        store = self._settings.store
        scheme = store.partition("://")[0] if store else "embedded"
        return Running(
            pid=os.getpid(),
            http=url_of(sockets.http),
            control=url_of(sockets.control),
            home=str(self._home.path),
            store=scheme,
            durability=self._settings.durability if store is None else "as the store has it",
        )

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupted)

    def _interrupted(self) -> None:
        if self._stop.is_set():
            self._tell("stopping at once")
            self._force.set()
            return
        self._tell("stopping: waiting for what is under way (interrupt again to stop at once)")
        self._stop.set()


async def _for_ever() -> None:
    await asyncio.Event().wait()
