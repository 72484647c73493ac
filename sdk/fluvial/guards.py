"""Guards: what workflow code must not do raises; what it may ask anyway is answered repeatably.

They look at one thing, whether a workflow's loop is running in this thread and workflow code acts
in it (`fluvial.callers`), and change nothing anywhere else:

    refusals     processes, sockets, files, threads and blocking waits raise
    answers      clocks and chance speak for the run
    datetimes    `datetime.now` and `utcnow` do, in the type itself
    ordering     what asyncio takes from sets comes in a repeatable order

Only names that are looked up after `install` see the replaced functions (`from time import time`
before it keeps the real one), so an instance installs the guards before it imports a bundle.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging

from fluvial import answers, datetimes, ordering, refusals

logger = logging.getLogger(__name__)


@functools.cache  # once per process: an audit hook cannot be taken away again
def install() -> None:
    """Put the guards up; a second call does nothing."""
    importlib.import_module("fluvial.unguarded")  # first: it takes the real functions
    # This test tool writes into the C structures of the functions that it finds when it is
    # imported; were those replacements by then, it would crash the process.
    with contextlib.suppress(ImportError):
        importlib.import_module("_time_machine")
    refusals.install()
    answers.install()
    ordering.install()
    if not datetimes.install():
        logger.warning(
            "datetime.now() cannot be guarded in this Python: use fluvial.now() in workflows"
        )
