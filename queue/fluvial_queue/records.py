"""The typed forms of the records that the control plane keeps (`Store.put_record`); what is known
of a cron is in `cron_records`, how aliases moved in `alias_records`, what
is being deleted in `removal_records`.

`to_dict` gives plain values for the store, `from_dict` reads them back and ignores keys that a
newer version has added. The record's id is not part of its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from fluvial.crons import CronSpec
from fluvial.interfaces import Interface
from fluvial.manifest import DeploymentSpec
from fluvial_queue.alias_records import AliasMove, LeftDeployment
from fluvial_queue.removal_records import RetiringDeployment
from fluvial_queue.rollout_records import RolloutRecord

DEFAULT_APP_SETTING: Final = "default_app"  # id of the `setting` record {"app": name}


@dataclass(frozen=True, slots=True)
class ActiveCron:
    """A cron that an app's production deployment has; it moves with the alias."""

    name: str
    identity: str  # `CronSpec.identity`
    since_ms: int  # only later ticks are its; kept by moves between deployments that have it

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.name, self.identity, self.since_ms]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRecord:
    """Kind `app`; the id is the app's name."""

    app: str
    production: str | None = None  # a deployment's id
    previous: str | None = None
    key_id: str = ""
    public_key: bytes = b""
    keys_frozen: bool = False  # nothing new may be sealed for it
    created_ms: int = 0
    crons: tuple[ActiveCron, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])  # beside `production`
    last_move: AliasMove | None = None  # of any alias; older ones are in the history
    retiring: tuple[RetiringDeployment, ...] = ()
    keep_count: int | None = None  # of its newest deployments; None: the platform's rule
    keep_ms: int | None = None  # how long each of its deployments is kept at least; likewise
    left: tuple[LeftDeployment, ...] = ()  # where aliases stood until lately, newest last
    pin_ms: int | None = None  # how long clients may go on with those; None: the default, 0: not
    sets_pin_cookie: bool = False
    rollout: RolloutRecord | None = None  # the one under way, or the last one

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {
            "app": self.app,
            "production": self.production,
            "previous": self.previous,
            "key_id": self.key_id,
            "public_key": self.public_key,
            "keys_frozen": self.keys_frozen,
            "created_ms": self.created_ms,
            "crons": [cron.to_list() for cron in self.crons],
            "aliases": dict(self.aliases),
            "last_move": None if self.last_move is None else self.last_move.to_list(),
            "retiring": [entry.to_list() for entry in self.retiring],
            "keep_count": self.keep_count,
            "keep_ms": self.keep_ms,
            "left": [entry.to_list() for entry in self.left],
            "pin_ms": self.pin_ms,
            "sets_pin_cookie": self.sets_pin_cookie,
            "rollout": None if self.rollout is None else self.rollout.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        move, rollout = value.get("last_move"), value.get("rollout")
        return cls(
            app=value["app"],
            production=value["production"],
            previous=value["previous"],
            key_id=value["key_id"],
            public_key=value["public_key"],
            keys_frozen=value.get("keys_frozen", False),
            created_ms=value["created_ms"],
            crons=tuple(ActiveCron(*cron) for cron in value.get("crons", ())),
            aliases=value.get("aliases", {}),
            last_move=None if move is None else AliasMove.from_list(move),
            retiring=tuple(RetiringDeployment(*entry) for entry in value.get("retiring", ())),
            keep_count=value.get("keep_count"),
            keep_ms=value.get("keep_ms"),
            left=tuple(LeftDeployment(*entry) for entry in value.get("left", ())),
            pin_ms=value.get("pin_ms"),
            sets_pin_cookie=value.get("sets_pin_cookie", False),
            rollout=None if rollout is None else RolloutRecord.from_dict(rollout),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFunctions:
    """What the build found in a bundle."""

    entrypoint: str | None = None
    interface: Interface | None = None
    workflows: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    crons: tuple[CronSpec, ...] = ()
    files: tuple[str, ...] = ()  # entrypoints below `api/`, each with a path of its own

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "entrypoint": self.entrypoint,
            "interface": self.interface,
            "workflows": list(self.workflows),
            "steps": list(self.steps),
            "crons": [cron.to_dict() for cron in self.crons],
            "files": list(self.files),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return what `to_dict` made `value` from."""
        return cls(
            entrypoint=value["entrypoint"],
            interface=value["interface"],
            workflows=tuple(value["workflows"]),
            steps=tuple(value["steps"]),
            crons=tuple(CronSpec.from_dict(cron) for cron in value.get("crons", ())),
            files=tuple(value.get("files", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """Kind `deployment`; the id is the deployment's (`dpl_…`)."""

    spec: DeploymentSpec
    created_ms: int
    functions: DeploymentFunctions = field(default_factory=DeploymentFunctions)
    source_digest: str = ""
    retention_ms: int | None = None  # of its runs once they have ended; None: the store's

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {
            "spec": self.spec.to_dict(),
            "created_ms": self.created_ms,
            "functions": self.functions.to_dict(),
            "source_digest": self.source_digest,
            "retention_ms": self.retention_ms,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        return cls(
            spec=DeploymentSpec.from_dict(value["spec"]),
            created_ms=value["created_ms"],
            functions=DeploymentFunctions.from_dict(value["functions"]),
            source_digest=value["source_digest"],
            retention_ms=value.get("retention_ms"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """Kind `token`; the id is the SHA-256 of the token, in hex."""

    name: str
    scopes: tuple[str, ...]
    created_ms: int

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {"name": self.name, "scopes": list(self.scopes), "created_ms": self.created_ms}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        return cls(
            name=value["name"], scopes=tuple(value["scopes"]), created_ms=value["created_ms"]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """Kind `host`; the id is the host's name."""

    app: str

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {"app": self.app}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        return cls(app=value["app"])
