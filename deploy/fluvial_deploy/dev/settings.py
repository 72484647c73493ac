"""What `fluvial dev` was told, and the platform that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluvial_deploy.up.settings import Address, UpSettings

HOME: Final = ".fluvial"  # in the folder; no bundle takes it along
IMPORT_ENVIRONMENT: Final = "dev-environment.json"
_KEPT_DEPLOYMENTS: Final = 20  # besides those that runs need: each save makes one
_KEPT_SECONDS: Final = 3600.0
_LONG_SECONDS: Final = 24 * 3600.0  # nothing that a reload needs leaves meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """Everything that `fluvial dev` needs to know."""

    folder: Path
    home: Path
    port: int
    name: str | None = None  # the app's, whatever the manifest says
    is_ephemeral: bool = False  # the home is a temporary one, and the store lives in memory

    @property
    def import_environment(self) -> Path:
        """The file with the variables that were read from the folder's files last."""
        return self.home / IMPORT_ENVIRONMENT

    def up(self) -> UpSettings:
        """Return the settings of the platform.

        What was acknowledged survives that a process is killed; syncing each write to the disk, for
        the sake of a power cut, would make each step slower.
        """
        return UpSettings(
            home=self.home,
            store="memory://" if self.is_ephemeral else None,
            durability="process",
            http=Address("--port", "127.0.0.1", self.port),
            control=Address("--control", "127.0.0.1", 0),
            keep_deployments=_KEPT_DEPLOYMENTS,
            keep_deployments_seconds=_KEPT_SECONDS,
            invoker_idle_seconds=_LONG_SECONDS,
            builder_idle_seconds=_LONG_SECONDS,
            is_dev=True,
            import_environment=self.import_environment,
        )
