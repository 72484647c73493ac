"""Why a build was refused, with the stable codes that a caller sees.

FluvialError
├── ImportFailedError        import_failed: the bundle's own code raised at import
├── CronInvalidError         cron_invalid: a cron does not fit its workflow
├── DependenciesFailedError  dependencies_failed: its requirements cannot be installed
├── DiskFullError            disk_full: there is no room for what the build makes
└── BusyError                unavailable: too many builds are waiting (retryable)

The others come from `fluvial.errors`: manifest_invalid, no_entrypoint, bundle_invalid, too_large.
"""

from __future__ import annotations

from fluvial.errors import FluvialError, UnavailableError


class ImportFailedError(FluvialError):
    """The bundle's own code raised at import; the message ends with its traceback."""

    code = "import_failed"


class CronInvalidError(FluvialError):
    """A cron does not fit its workflow; the message says which and why."""

    code = "cron_invalid"


class DependenciesFailedError(FluvialError):
    """The bundle's requirements cannot be read or installed."""

    code = "dependencies_failed"


class DiskFullError(FluvialError):
    """There is no room for what the build makes."""

    code = "disk_full"

    def __init__(self) -> None:
        super().__init__("no space is left for what the build makes: make room on the platform")


class BusyError(UnavailableError):
    """Too many builds are waiting."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} builds are waiting already: try again later")
