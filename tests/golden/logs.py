"""Golden logs as files: `logs/<version>/<name>.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from fluvial.encryption import AppKeys
from fluvial.events import Event, decode_event

FOLDER: Final = Path(__file__).parent / "logs"
CURRENT: Final = version("fluvial")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenLog:
    """A run's log as a version wrote it, with the test keys that open it."""

    version: str
    name: str
    workflow: str
    app: str
    run_id: str
    keys: dict[str, str]  # key id → root key, in hex
    encoded: Sequence[bytes]

    @property
    def events(self) -> list[Event]:
        return [decode_event(event) for event in self.encoded]

    def app_keys(self) -> AppKeys:
        roots = {key_id: bytes.fromhex(root) for key_id, root in self.keys.items()}
        return AppKeys(self.app, roots, next(iter(roots)))


def path_of(version: str, name: str) -> Path:
    """Return where a log is."""
    return FOLDER / version / f"{name}.json"


def every_log() -> list[GoldenLog]:
    """Return the logs of all versions."""
    return [_read(path) for path in sorted(FOLDER.glob("*/*.json"))]


def write(log: GoldenLog) -> None:
    """Write a log; the name of each event's type is for readers only."""
    fields = {
        "workflow": log.workflow,
        "app": log.app,
        "run_id": log.run_id,
        "keys": log.keys,
        "events": [
            f"{event.type.name} {encoded.hex()}"
            for event, encoded in zip(log.events, log.encoded, strict=True)
        ],
    }
    path = path_of(log.version, log.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, indent=1) + "\n")


def _read(path: Path) -> GoldenLog:
    fields = json.loads(path.read_text())
    return GoldenLog(
        version=path.parent.name,
        name=path.stem,
        workflow=fields["workflow"],
        app=fields["app"],
        run_id=fields["run_id"],
        keys=fields["keys"],
        encoded=[bytes.fromhex(line.rpartition(" ")[2]) for line in fields["events"]],
    )
