"""Replay reports, as a client of the control API reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """What a replay of one run's log on another deployment has shown."""

    run_id: str
    workflow: str
    deployment: str  # where the run is
    status: str
    finding: str  # ok, diverged or unchecked
    detail: str  # the diff, or why it could not be checked
    warnings: Sequence[str]

    @classmethod
    def from_json(cls, run: dict[str, Any]) -> RunCheck:
        texts = ("run_id", "workflow", "deployment", "status", "finding", "detail")
        found = {name: str(run.get(name, "")) for name in texts}
        return cls(**found, warnings=[str(warning) for warning in run.get("warnings", ())])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """How many runs were checked, and what was found."""

    checked: int
    ok: int
    diverged: int
    unchecked: int
    with_warnings: int
    is_complete: bool  # False: there are more runs than the limit

    @classmethod
    def from_json(cls, report: dict[str, Any]) -> ReplayReport:
        return cls(
            checked=int(report["checked"]),
            ok=int(report["ok"]),
            diverged=int(report["diverged"]),
            unchecked=int(report["unchecked"]),
            with_warnings=int(report["with_warnings"]),
            is_complete=bool(report["is_complete"]),
        )
