"""`python -m fluvial_invoker`: started by the supervisor, with a listening socket."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from fluvial.errors import FluvialError
from fluvial_invoker.app import run
from fluvial_invoker.config import Config
from fluvial_invoker.program_log import ExtraFormatter


def main() -> int:
    """Run the invoker; return its exit status."""
    handler = logging.StreamHandler()
    handler.setFormatter(ExtraFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        config = Config.from_environment(os.environ)
    except FluvialError as error:
        print(f"fluvial_invoker: {error}", file=sys.stderr)
        return 2
    asyncio.run(run(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
