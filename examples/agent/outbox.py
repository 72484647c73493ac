"""Where mail goes: the stand-in for a mail server that honours idempotency keys.

A file per mail, named after its key, in `fluvial-agent-outbox` among the temporary files (a test
may name another folder in AGENT_OUTBOX).
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path


def outbox_path() -> Path:
    """Return the folder of the outbox."""
    default = Path(tempfile.gettempdir()) / "fluvial-agent-outbox"
    return Path(os.environ.get("AGENT_OUTBOX") or default)


def deliver(mail: dict[str, str], *, key: str) -> None:
    """Send a mail; the same key again sends nothing."""
    folder = outbox_path()
    folder.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", encoding="utf-8") as draft:
        json.dump(mail, draft)
        draft.flush()
        with suppress(FileExistsError):
            os.link(draft.name, folder / f"{key}.json")  # at once, and only if it is not there
