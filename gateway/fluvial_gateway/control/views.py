"""How values of the platform look in JSON. Times are RFC 3339 in UTC with milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import urlsplit

from fluvial.events import Event
from fluvial.file_functions import route_of
from fluvial.hook_tokens import without_secret
from fluvial_gateway.aliases import aliases_of
from fluvial_gateway.control.schemas import Schema, array, nullable, obj, text
from fluvial_queue.alias_records import PRODUCTION
from fluvial_queue.contract import RunRecord, RunStatus
from fluvial_queue.records import AppRecord, DeploymentRecord

TIME: Final[Schema] = {"type": "string", "format": "date-time"}
ALIASES: Final[Schema] = {
    "type": "object",
    "additionalProperties": text("a deployment"),
    "description": "by name, without production",
}
APP: Final = obj(
    {
        "app": text(),
        "url": text(),
        "production": nullable(text()),
        "previous": nullable(text()),
        "aliases": ALIASES,
        "created_at": TIME,
        "retiring": array(text("a deployment that is deleted after its last run")),
        "keep_deployments": nullable({"type": "integer", "description": "null: the platform's"}),
        "keep_deployments_seconds": nullable(
            {"type": "number", "description": "null: the platform's"}
        ),
        "pin_seconds": nullable({"type": "number", "description": "null: the platform's"}),
        "pin_cookie": {"type": "boolean"},
        "rollout": nullable(text("where production is on its way to")),
    }
)
DEPLOYMENT: Final = obj(
    {
        "deployment": text(),
        "app": text(),
        "url": text(),
        "created_at": TIME,
        "bundle": text(),
        "layer": text(),
        "source_digest": text(),
        "entrypoint": nullable(text()),
        "interface": nullable(text()),
        "routes": array(text("the path of a function that is a file of its own")),
        "workflows": array(text()),
        "steps": array(text()),
        "crons": array(text("a cron's name")),
        "instance": {"type": "object"},
        "retention_seconds": nullable({"type": "number", "description": "null: the platform's"}),
        "environment": array(text("the name of a variable")),
        "aliases": array(text("an alias that stands on it")),
        "state": text("ready, or retiring: it is deleted after its last run"),
    }
)
UNREADABLE: Final = obj({"code": text("such as key_destroyed"), "message": text()})
UNREADABLE_PARTS: Final = obj({"input": UNREADABLE, "result": UNREADABLE, "error": UNREADABLE})
RUN: Final = obj(
    {
        "run_id": text(),
        "app": text(),
        "workflow": text(),
        "deployment": text(),
        "status": text(),
        "key": nullable(text()),
        "created_at": TIME,
        "finished_at": nullable(TIME),
        "events": {"type": "integer"},
        "reason": nullable(text("why it is paused")),
        "cron": nullable(obj({"name": text(), "tick": TIME})),
        "tags": {"type": "object", "additionalProperties": text()},
        "priority": {"type": "integer"},
        "starts_at": nullable(TIME),
        "deadline_at": nullable(TIME),
        "retention_seconds": nullable({"type": "number", "description": "null: the platform's"}),
        "parent": nullable(text("the run whose child it is")),
        "root": nullable(text("the first run of its family")),
        "first": nullable(text("the first run in whose place it goes on")),
        "origin": nullable(text("the run that it was forked from")),
        "rerun_of": nullable(text("the run that it was started like")),
        "input": {"description": "only with data=true"},
        "result": {"description": "only with data=true"},
        "error": {"description": "only with data=true"},
        "unreadable": UNREADABLE_PARTS,
    }
)
_FAMILY: Final = ("parent", "root", "first", "origin", "rerun_of")
EVENT: Final = obj(
    {
        "position": {"type": "integer"},
        "type": text(),
        "at": TIME,
        "id": {"type": "integer"},
        "meta": {"type": "object"},
        "bytes": {"type": "integer"},
        "data": {"description": "only with data=true, where the event has a payload"},
        "unreadable": UNREADABLE,
    }
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes the URLs under which apps and deployments answer."""

    public_url: str
    domain: str

    def of_app(self, app: str) -> str:
        return self._of(app)

    def of_deployment(self, deployment: str) -> str:
        return self._of(deployment.replace("_", "-"))

    def of_alias(self, app: str, alias: str) -> str:
        return self._of(app if alias == PRODUCTION else f"{alias}--{app}")

    def of_host(self, host: str) -> str:
        parts = urlsplit(self.public_url)
        port = f":{parts.port}" if parts.port is not None else ""
        return f"{parts.scheme}://{host}{port}"

    def _of(self, name: str) -> str:
        return self.of_host(f"{name}.{self.domain}")


def time_text(milliseconds: int) -> str:
    """Return a Unix time in milliseconds as RFC 3339."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def app_view(app: AppRecord, addresses: Addresses) -> dict[str, Any]:
    rollout = app.rollout
    return {
        "app": app.app,
        "url": addresses.of_app(app.app),
        "production": app.production,
        "previous": app.previous,
        "aliases": dict(app.aliases),
        "created_at": time_text(app.created_ms),
        "retiring": [entry.deployment for entry in app.retiring],
        "keep_deployments": app.keep_count,
        "keep_deployments_seconds": _seconds(app.keep_ms),
        "pin_seconds": _seconds(app.pin_ms),
        "pin_cookie": app.sets_pin_cookie,
        "rollout": rollout.deployment if rollout is not None and rollout.is_active else None,
    }


def deployment_view(
    deployment: DeploymentRecord, addresses: Addresses, app: AppRecord | None
) -> dict[str, Any]:
    spec, functions = deployment.spec, deployment.functions
    return {
        "deployment": spec.deployment,
        "app": spec.app,
        "url": addresses.of_deployment(spec.deployment),
        "created_at": time_text(deployment.created_ms),
        "bundle": spec.bundle,
        "layer": spec.layer,
        "source_digest": deployment.source_digest,
        "entrypoint": functions.entrypoint,
        "interface": functions.interface,
        "routes": [route_of(target) for target in functions.files],
        "workflows": list(functions.workflows),
        "steps": list(functions.steps),
        "crons": [cron.name for cron in functions.crons],
        "instance": asdict(spec.instance),
        "retention_seconds": _seconds(deployment.retention_ms),
        # Values may be secrets; who deployed knows them.
        "environment": sorted({*spec.environment, *spec.sealed_environment}),
        "aliases": [] if app is None else _aliases_on(app, spec.deployment),
        "state": "retiring" if app is not None and _is_retiring(app, spec.deployment) else "ready",
    }


def _is_retiring(app: AppRecord, deployment: str) -> bool:
    return any(entry.deployment == deployment for entry in app.retiring)


def _aliases_on(app: AppRecord, deployment: str) -> list[str]:
    return [alias for alias, target in aliases_of(app).items() if target == deployment]


def run_view(record: RunRecord) -> dict[str, Any]:
    finished = record.finished_ms
    return {
        "run_id": record.run_id,
        "app": record.app,
        "workflow": record.workflow,
        "deployment": record.deployment,
        "status": record.status.value,
        "key": record.key or None,
        "created_at": time_text(record.created_ms),
        "finished_at": _moment(finished),
        "events": record.events,
        "reason": record.reason if record.status is RunStatus.PAUSED else None,
        "cron": _cron_of(record),
        "tags": dict(record.tags),
        "priority": int(record.meta.get("priority", 0)),
        "starts_at": _moment(record.meta.get("start_at")),
        "deadline_at": _moment(record.meta.get("deadline_at")),
        "retention_seconds": _seconds(record.retention_ms),
        **{name: record.meta.get(name) for name in _FAMILY},
    }


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else time_text(milliseconds)


def _cron_of(record: RunRecord) -> dict[str, str] | None:
    """Return which tick of which cron a run was started for."""
    name, tick = record.meta.get("cron"), record.meta.get("tick")
    return None if name is None else {"name": str(name), "tick": str(tick)}


def event_view(position: int, event: Event, *, shows_secrets: bool) -> dict[str, Any]:
    meta = _without_progress(event.meta)
    return {
        "position": position,
        "type": event.type.name.lower(),
        "at": time_text(event.at_ms),
        "id": event.id,
        "meta": plain(meta if shows_secrets else _without_secret(meta)),
        "bytes": len(event.payload),
    }


def _without_secret(meta: Mapping[str, object]) -> Mapping[str, object]:
    """Hide the token by which anybody who has it may resume a hook."""
    token = meta.get("token")
    return {**meta, "token": without_secret(token)} if isinstance(token, str) else meta


def _without_progress(meta: Mapping[str, object]) -> Mapping[str, object]:
    """Leave out what nobody can read: a step's progress is sealed, and may be long."""
    progress = meta.get("progress")
    if not isinstance(progress, bytes):
        return meta
    kept = {name: value for name, value in meta.items() if name != "progress"}
    return {**kept, "progress_bytes": len(progress)}


def plain(value: object) -> Any:
    """Return a msgpack value as JSON has it: bytes as hex, other keys than text as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        return {str(key): plain(item) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("list[object]", value)]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)
