"""How the invoker writes its own log: one line per state change, with its data."""

from __future__ import annotations

import logging
from typing import Final

_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


class ExtraFormatter(logging.Formatter):
    """Time, level, logger, message, and what was given in `extra` as key=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return " ".join([text, *(f"{name}={value!r}" for name, value in extra.items())])
