"""The audit log: one line for each call of an operation that may change something.

The line says who asked for what, of which app, run or deployment, and how it ended; handlers add
ids and counts (`Call.note`). Refusals leave a line too, but for strangers: who has no token could
otherwise fill the log. What is streamed gets its line at the end of the stream.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fluvial_gateway.auth import Principal
from fluvial_gateway.control.operations import INTERRUPTED, Call, Operation

_AUDIT = logging.getLogger("fluvial_gateway.audit")


class AuditLine:
    """What is known of one call while it is carried out."""

    def __init__(self, operation: Operation, path: Mapping[str, Any]) -> None:
        self.outcome = INTERRUPTED  # or DONE, or the code of the problem
        self.principal: Principal | None = None  # None: nobody that is known
        self.call: Call | None = None  # None: it was refused before it could be read
        self._operation = operation
        self._path = path

    def write(self) -> None:
        """Write the line, if the operation is one that leaves it."""
        principal, operation = self.principal, self._operation
        if principal is None or not operation.is_audited:
            return
        public = [p.name for p in operation.placed("path") if not p.is_secret]
        notes = dict(self.call.notes) if self.call is not None else {}
        outcome = notes.pop("outcome", self.outcome)
        said = {
            "operation": operation.name,
            "token_id": principal.token_id,
            "token_name": principal.name,
            "outcome": outcome,
            # In one member: no note can be mistaken for one of the others.
            "about": {name: str(self._path[name]) for name in public} | notes,
        }
        _AUDIT.info("control operation", extra=said)
