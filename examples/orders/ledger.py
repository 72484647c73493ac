"""Where the effects of an order are written down: the stand-in for a bank and a warehouse.

A JSON line per effect, in `fluvial-orders.jsonl` among the temporary files (a test may name another
file in ORDERS_LEDGER). Each line has the idempotency key of the step that wrote it: a real bank
would ignore a key that it has seen.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from fluvial import metadata
from fluvial.errors import NotInWorkflowError


def ledger_path() -> Path:
    """Return the file of the ledger."""
    default = Path(tempfile.gettempdir()) / "fluvial-orders.jsonl"
    return Path(os.environ.get("ORDERS_LEDGER") or default)


def record(effect: str, order: str, **details: Any) -> None:
    """Append one effect. One write in append mode: lines of parallel steps never mix."""
    key, attempt = _origin()
    entry = {"effect": effect, "order": order, "key": key, "attempt": attempt, **details}
    line = json.dumps(entry).encode() + b"\n"
    descriptor = os.open(ledger_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _origin() -> tuple[str, int]:
    try:
        running = metadata()
    except NotInWorkflowError:
        return "", 1  # a plain call, from a test or a shell
    return running.idempotency_key, running.attempt
