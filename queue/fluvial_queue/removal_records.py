"""What is left to do of deployments that are being deleted, or were just now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class RetiringDeployment:
    """A deployment of an app that goes when nothing needs it; it stands in the app's record, so
    that no alias moves to it and it does not go from under an alias."""

    deployment: str
    since_ms: int
    spares_ended: bool  # also ended runs, which their retention still keeps, need it

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.deployment, self.since_ms, self.spares_ended]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedDeployment:
    """Kind `removed`; the id is the deployment's. What it leaves on disk goes with this record."""

    app: str
    bundle: str
    layer: str
    source_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {
            "app": self.app,
            "bundle": self.bundle,
            "layer": self.layer,
            "source_digest": self.source_digest,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        return cls(
            app=value["app"],
            bundle=value["bundle"],
            layer=value["layer"],
            source_digest=value["source_digest"],
        )
