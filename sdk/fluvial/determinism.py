"""The time, chance and fresh ids that a workflow may use: the same on every replay.

Outside workflows they are the ordinary ones, so that shared code can call them anywhere.
"""

from __future__ import annotations

import random as random_module
import time
import uuid
from datetime import UTC, datetime

from fluvial.loop import current_loop


def now() -> datetime:
    """The time in UTC; in a workflow, that of the last event it has seen."""
    loop = current_loop()
    return datetime.fromtimestamp(time.time() if loop is None else loop.time(), UTC)


def random() -> float:
    """A random number in [0, 1); in a workflow, seeded by the run."""
    loop = current_loop()
    return random_module.random() if loop is None else loop.scope.random.random()


def uuid4() -> uuid.UUID:
    """A random UUID; in a workflow, seeded by the run."""
    loop = current_loop()
    if loop is None:
        return uuid.uuid4()
    return uuid.UUID(bytes=loop.scope.entropy(16), version=4)
