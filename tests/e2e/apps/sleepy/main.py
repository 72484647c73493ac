"""A WSGI app that waits in its threads until all of its callers have come."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

CALLERS = 50
together = threading.Barrier(CALLERS)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer when so many are being served at once."""
    if environ["PATH_INFO"] == "/together":
        together.wait(60)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
