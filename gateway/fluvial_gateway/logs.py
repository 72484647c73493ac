"""Logs: one JSON object a line on standard error, with secrets redacted here and nowhere else."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

# What a log record has by itself; everything else in it came through `extra`.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
# Tokens of ours, and the user part of URLs such as redis://user:password@host.
_SECRETS: Final = re.compile(r"flv_[\w-]{16,}|(?<=://)[^\s/\"]+(?=@)|(?i:(?<=bearer )\S+)")
_MAX_CHARACTERS: Final = 16 * 1024  # of a line; a traceback is seldom longer


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD and name not in line:
                line[name] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))[-_MAX_CHARACTERS:]
        return json.dumps(line, default=_text)


def redact(text: str) -> str:
    """Return `text` without tokens and passwords."""
    return _SECRETS.sub("[redacted]", text)


def _text(value: object) -> str:
    return redact(str(value))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send everything that is logged to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # "Started server process" twice a start, and nothing that we do not say ourselves.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
