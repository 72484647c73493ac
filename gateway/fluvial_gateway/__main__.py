"""`python -m fluvial_gateway`: reads the environment, serves until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from fluvial.errors import FluvialError
from fluvial_gateway.app import serve
from fluvial_gateway.config import Config, read_config
from fluvial_gateway.logs import log_to_stderr

_LOG = logging.getLogger("fluvial_gateway")


def main() -> int:
    """Return the exit status: 0 after an orderly stop, 1 where it could not start."""
    log_to_stderr()
    try:
        config = read_config()
        uvloop.run(_main(config))
    except FluvialError as error:
        _LOG.error("the gateway cannot run", extra={"code": error.code, "error": str(error)})
        return 1
    return 0


async def _main(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)


if __name__ == "__main__":
    sys.exit(main())
