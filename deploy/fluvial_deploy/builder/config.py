"""The builder's settings, read once from its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fluvial.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the builder is told from outside."""

    home: Path
    listener_fd: int
    idle_seconds: float = 30.0
    default_idle_seconds: float = 10.0  # of instances whose manifest does not say
    install_environment: Mapping[str, str]  # for uv alone
    is_dev: bool = False  # a bundle lives for seconds: no bytecode, and the next import is prepared
    import_environment: Path | None = None  # a file of variables that imports may see (dev alone)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Config:
        """Return the settings in `environment`.

        Raises:
            InvalidRequestError: a variable is missing or wrong; the message names it.
        """
        home, listener = environment.get("FLUVIAL_HOME"), environment.get("FLUVIAL_BUILDER_FD")
        if not home or not Path(home).is_absolute():
            raise InvalidRequestError(f"FLUVIAL_HOME must be an absolute path, got {home!r}")
        if listener is None or not listener.isdecimal():
            raise InvalidRequestError(f"FLUVIAL_BUILDER_FD must be a number, got {listener!r}")
        return cls(
            home=Path(home),
            listener_fd=int(listener),
            idle_seconds=_seconds(environment, "FLUVIAL_BUILDER_IDLE", "30"),
            default_idle_seconds=_seconds(environment, "FLUVIAL_DEFAULT_IDLE", "10"),
            install_environment=install_environment(environment),
            is_dev=environment.get("FLUVIAL_BUILDER_DEV") == "1",
            import_environment=_path(environment.get("FLUVIAL_IMPORT_ENVIRONMENT")),
        )


def install_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what uv needs of the operator's environment: tools, proxies, trust, its own settings.

    uv reads neither pip's variables nor its files; what an operator has set for pip is passed on
    unless uv has been told otherwise.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith("UV_") or name.upper() in _PROXIES
    }
    for theirs, ours in _FROM_PIP.items():
        value = environment.get(theirs)
        if value and ours not in kept:
            kept[ours] = ",".join(value.split()) if ours == "UV_FIND_LINKS" else value
    return kept


_KEPT = frozenset(
    {
        "HOME",
        "PATH",
        "LANG",
        "TMPDIR",
        "NETRC",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_CONFIG_DIRS",
        "XDG_DATA_HOME",
    }
)
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _seconds(environment: Mapping[str, str], name: str, default: str) -> float:
    text = environment.get(name, default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidRequestError(f"{name} must be seconds, got {text!r}")
    return seconds
