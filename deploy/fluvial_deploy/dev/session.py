"""A session of `fluvial dev`: the platform, and beside it what watches and what shows logs.

Interrupted, the platform stops in order, as `fluvial up` does; what stands beside it ends first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from fluvial.client import Client
from fluvial.errors import FluvialError
from fluvial_deploy.cli.output import say
from fluvial_deploy.dev.reloading import Reloader
from fluvial_deploy.dev.settings import DevSettings
from fluvial_deploy.dev.telling import Teller
from fluvial_deploy.dev.watching import FolderWatch
from fluvial_deploy.up.home import Home
from fluvial_deploy.up.supervisor import Running, Supervisor


async def run(settings: DevSettings, teller: Teller) -> None:
    """Run a platform for the folder until it is interrupted.

    Raises:
        FluvialError: the platform does not start, or dies again and again.
    """
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    supervisor = Supervisor(settings.up(), tell=say, ready=ready.set_result)
    platform = asyncio.create_task(supervisor.run())
    first: tuple[asyncio.Future[Any], ...] = (platform, ready)
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            session = _Session(settings, ready.result(), teller)
            await _until_first(_end_of(platform), supervisor.wait_until_stopping(), session.run())
    finally:
        supervisor.stop()
        await platform


class _Session:
    def __init__(self, settings: DevSettings, running: Running, teller: Teller) -> None:
        self._settings = settings
        self._control = running.control
        self._token = Home(settings.home).token_file.read_text().strip()
        self._teller = teller
        self._shown: set[str] = set()  # apps whose logs are shown

    async def run(self) -> None:
        """Follow the folder's changes, for ever.

        Raises:
            BundleError: the folder cannot be watched.
        """
        settings, watch = self._settings, FolderWatch(self._settings.folder)
        self._teller.ready(
            home=str(settings.home), control=self._control, folder=str(settings.folder)
        )
        with Client(self._control, self._token) as client:
            reloader = Reloader(settings, client, self._teller)
            await _until_first(watch.run(), self._reload(watch, reloader))

    async def _reload(self, watch: FolderWatch, reloader: Reloader) -> None:
        while True:
            await reloader.reload(await watch.next())
            if reloader.deployment is not None and reloader.app not in self._shown:
                self._shown.add(reloader.app)
                # Its owner is the platform: the stream that it reads ends with the gateway. A
                # thread of the loop's executor would be waited for at the end.
                threading.Thread(target=self._show_logs, args=(reloader.app,), daemon=True).start()

    def _show_logs(self, app: str) -> None:
        with suppress(FluvialError), Client(self._control, self._token) as client:
            for record in client.logs(app, tail=0, follow=True):
                self._teller.log(record)


async def _until_first(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until one of them ends, and cancel the others; a failure is raised."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end_of(task: asyncio.Task[None]) -> None:
    """Wait for a task's end, however that is; being cancelled does not cancel it."""
    await asyncio.wait({task})
