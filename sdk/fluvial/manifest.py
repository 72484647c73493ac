"""The manifest: how a bundle says what it is (`[tool.fluvial]` in pyproject.toml, or fluvial.toml).

Everything has a default; an unknown key is an error that names the key and the known ones.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Isolation = Literal["process", "jail"]
APP_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
MODULE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """How instances of a deployment are run."""

    memory_bytes: int = 512 * 1024 * 1024
    max_concurrency: int = 100
    idle_seconds: float = 10.0
    min_instances: int = 0
    max_instances: int = 8
    max_duration_seconds: float = 300.0
    isolation: Isolation = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says about itself, validated."""

    name: str
    app: str | None = None  # "module:attribute"; None: found by convention at build, if at all
    workflows: tuple[str, ...] = ()  # modules; empty: the app's module
    instance: InstanceSettings = field(default_factory=InstanceSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack or JSON."""
        plain = asdict(self)
        plain["workflows"] = list(self.workflows)
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """Everything that an invoker needs to start an instance of a deployment."""

    deployment: str  # dpl_…
    app: str
    bundle: str  # sha256 of the archive; the unpacked folder is <data>/bundles/<bundle>
    layer: str  # key of the dependency layer: <data>/layers/<layer>; "" = no dependencies
    entrypoint: str | None  # "module:attribute" of the HTTP app
    workflows: tuple[str, ...]  # modules to import besides it
    instance: InstanceSettings
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack or JSON."""
        plain = asdict(self)
        plain["workflows"] = list(self.workflows)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DeploymentSpec:
        """Return the spec that `to_dict` made `plain` from."""
        return cls(
            deployment=plain["deployment"],
            app=plain["app"],
            bundle=plain["bundle"],
            layer=plain["layer"],
            entrypoint=plain["entrypoint"],
            workflows=tuple(plain["workflows"]),
            instance=InstanceSettings(**plain["instance"]),
            environment=dict(plain["environment"]),
        )
