"""The builder's program: `python -m fluvial_deploy.builder`, started when somebody dials it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys

from fluvial.errors import InvalidRequestError
from fluvial_deploy.builder.build import Builds
from fluvial_deploy.builder.config import Config
from fluvial_deploy.builder.server import BuilderServer


async def serve(config: Config) -> None:
    """Serve builds until idle or asked to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener = socket.socket(fileno=config.listener_fd)
    listener.setblocking(False)
    builds = Builds(config)
    builds.sweep()
    server = BuilderServer(builds, idle_seconds=config.idle_seconds)
    try:
        await server.serve(listener, stop)
    finally:
        await builds.close()


def main() -> int:
    """Run the program and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = Config.of(os.environ)
    except InvalidRequestError as error:
        print(f"builder: {error}", file=sys.stderr)
        return 2
    os.umask(0o022)  # what is installed must be readable for the users that apps run as
    asyncio.run(serve(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
