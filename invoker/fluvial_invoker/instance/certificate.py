"""The birth certificate: everything that a new instance is told about itself.

It travels over the control descriptor, straight from the invoker to the instance, and so do the
app's keys, before it: neither they nor the environment ever enter the memory of the zygote that
instances of other apps are forked from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from fluvial.manifest import DeploymentSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BirthCertificate:
    """What an instance must know before it can load its deployment."""

    instance: str  # ins_…
    deployment: DeploymentSpec
    bundle_path: str
    layer_path: str  # "": the deployment has no dependencies
    runtime_path: str
    grace_seconds: float  # how long invocations may go on after SIGTERM
    uid: int | None = None  # whose process it becomes; None: it stays the invoker's
    user_folder: str = ""  # its HOME, where it has a uid of its own
    is_snapshot: bool = False  # it serves nothing itself: others are forked from it
    warm_up: str | None = None  # the path of the request that a snapshot answers first

    def encode(self) -> bytes:
        plain = {
            "instance": self.instance,
            "deployment": self.deployment.to_dict(),
            "bundle_path": self.bundle_path,
            "layer_path": self.layer_path,
            "runtime_path": self.runtime_path,
            "grace_seconds": self.grace_seconds,
            "uid": self.uid,
            "user_folder": self.user_folder,
            "is_snapshot": self.is_snapshot,
            "warm_up": self.warm_up,
        }
        return msgpack.packb(plain)

    @classmethod
    def decode(cls, data: bytes) -> BirthCertificate:
        plain: dict[str, Any] = msgpack.unpackb(data)
        plain["deployment"] = DeploymentSpec.from_dict(plain["deployment"])
        return cls(**plain)
