"""The manifest: how a bundle says what it is (`[tool.fluvial]` in pyproject.toml, or fluvial.toml).

Everything has a default; an unknown key is an error that names the key and the known ones. Reading
a manifest executes nothing of the bundle: it is what the command line checks before an upload and
what the builder reads from an archive of a stranger.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast

from fluvial.crons import MAX_CRONS, Cron
from fluvial.durations import MAX_SECONDS, to_seconds
from fluvial.entrypoints import TARGET, find_entrypoint
from fluvial.errors import (
    CronError,
    InvalidRequestError,
    ManifestError,
    NoEntrypointError,
)
from fluvial.interfaces import INTERFACES, Interface
from fluvial.networks import ALL_NETWORK, parse_network
from fluvial.sizes import parse_bytes
from fluvial.variables import check_variables

Isolation = Literal["process", "jail"]
OnDisconnect = Literal["cancel", "notify"]
Snapshotting = Literal["auto", "off"]
APP_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
MODULE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
PATH: Final = re.compile(r"/[!-~]{0,1023}")
MAX_MANIFEST_BYTES: Final = 1024 * 1024  # a pyproject.toml is a few KiB; this bounds a hostile one
MAX_INSTANCES: Final = 1000
MAX_CONCURRENCY: Final = 10_000
MIN_MEMORY_BYTES: Final = 32 * 1024 * 1024  # an interpreter with a web framework needs about that
MAX_DURATION_SECONDS: Final = 86_400.0
_NAME_CHARACTERS: Final = 40
_CRON_KEYS: Final = ("workflow", *Cron.__dataclass_fields__)
_IN_PYPROJECT: Final = "[tool.fluvial]"
# A reader checks and converts the value of one key; it is given where the value stands.
_Reader = Callable[[str, object], Any]


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
    network: str = ALL_NETWORK  # of a jail; see `networks`
    compression: bool = True  # of values, before they are sealed
    log_invocations: bool = False  # a record of each HTTP request and step that has ended
    on_disconnect: OnDisconnect = "cancel"  # what a client that leaves does to its async function
    snapshot: Snapshotting = "auto"
    warm_up: str | None = "/"  # the path of the request that a snapshot answers first; None: none


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestCron:
    """A cron and the workflow it is for: a name, or "module:function"."""

    workflow: str
    cron: Cron


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says about itself, validated."""

    name: str
    app: str | None = None  # "module:attribute"; None: found by convention at build, if at all
    workflows: tuple[str, ...] = ()  # modules; empty: the app's module
    instance: InstanceSettings = field(default_factory=InstanceSettings)
    source_builds: bool = False  # may a dependency without a wheel be built, i.e. executed?
    crons: tuple[ManifestCron, ...] = ()
    retention_seconds: float | None = None  # of its runs that have ended; None: the platform's
    environment: dict[str, str] = field(default_factory=dict[str, str])
    interface: Interface | None = None  # how the app is called; None: as it looks
    files: tuple[str, ...] = ()  # functions below `api/`, where there is no app

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack or JSON."""
        plain = asdict(self)
        plain["workflows"], plain["files"] = list(self.workflows), list(self.files)
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
    environment: dict[str, str] = field(default_factory=dict[str, str])  # of the manifest, plain
    # Of the app, as it was at the deploy; sealed to its key (`fluvial.sealing.variable_binding`).
    sealed_environment: dict[str, bytes] = field(default_factory=dict[str, bytes])
    interface: Interface | None = None  # how the entrypoint is called; None: as it looks
    files: tuple[str, ...] = ()  # "module:attribute" of functions, each with a path of its own

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack or JSON."""
        plain = asdict(self)
        plain["workflows"], plain["files"] = list(self.workflows), list(self.files)
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
            sealed_environment=dict(plain.get("sealed_environment", {})),
            interface=plain.get("interface"),
            files=tuple(plain.get("files", ())),
        )


def load_manifest(
    directory: Path, *, name: str | None = None, defaults: InstanceSettings | None = None
) -> Manifest:
    """Return the manifest of the bundle in `directory`, with its entrypoint found.

    Args:
        directory: the folder that is or will be the bundle.
        name: the app's name, whatever the manifest says.
        defaults: the instance settings that hold where the manifest says nothing.

    Raises:
        ManifestError: a key or value is wrong; the message names file and key.
        NoEntrypointError: there is neither an HTTP app nor a module of workflows.
    """
    pyproject = _toml(directory / "pyproject.toml") or {}
    where, table = _read(directory, pyproject)
    manifest = _parse(
        where,
        table,
        default_name=name or normalise_name(directory.resolve().name),
        defaults=defaults or InstanceSettings(),
    )
    if name is not None:
        manifest = replace(manifest, name=_name("the name of the app", name))
    if manifest.app is not None:
        return manifest
    try:
        found = find_entrypoint(directory, pyproject)
    except NoEntrypointError:
        if manifest.workflows:
            return manifest
        raise
    workflows = manifest.workflows or found.workflows
    return replace(manifest, app=found.app, files=found.files, workflows=workflows)


def normalise_name(text: str) -> str:
    """Return a valid app name that resembles `text`, such as `my-shop` for `My_Shop`."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not words:
        return "app"
    if not words[0].isalpha():
        words = f"app-{words}"
    return words[:_NAME_CHARACTERS].rstrip("-")


def _read(directory: Path, pyproject: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return (where the manifest stands, its table); an empty table where there is none."""
    own = _toml(directory / "fluvial.toml")
    tool = pyproject.get("tool", {})
    table = cast("dict[str, Any]", tool).get("fluvial") if isinstance(tool, dict) else None
    if own is not None and table is not None:
        reason = f"the manifest stands here and in pyproject.toml {_IN_PYPROJECT}: keep one"
        raise ManifestError("fluvial.toml", reason)
    if own is not None:
        return "fluvial.toml", own
    where = f"pyproject.toml {_IN_PYPROJECT}"
    if table is None:
        return where, {}
    return where, _table(where, table)


def _toml(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    size = path.stat().st_size
    if size > MAX_MANIFEST_BYTES:
        raise ManifestError(path.name, f"is {size} bytes, above {MAX_MANIFEST_BYTES}")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(path.name, f"is not TOML: {error}") from error


def _parse(
    where: str, table: dict[str, Any], *, default_name: str, defaults: InstanceSettings
) -> Manifest:
    readers: dict[str, tuple[str, _Reader]] = {
        "name": ("name", _name),
        "app": ("app", _target),
        "interface": ("interface", _interface),
        "workflows": ("workflows", _modules),
        "instance": ("instance", partial(_instance, defaults)),
        "source_builds": ("source_builds", _boolean),
        "cron": ("crons", _crons),
        "retention": ("retention_seconds", _seconds(0.0, MAX_SECONDS)),
        "env": ("environment", _environment),
    }
    values: dict[str, Any] = {"name": default_name, "instance": defaults}
    values |= _values(where, table, readers)
    return Manifest(**values)


def _instance(defaults: InstanceSettings, where: str, value: object) -> InstanceSettings:
    readers: dict[str, tuple[str, _Reader]] = {
        "memory": ("memory_bytes", _memory),
        "max_concurrency": ("max_concurrency", _integer(1, MAX_CONCURRENCY)),
        "idle": ("idle_seconds", _seconds(0.0, MAX_DURATION_SECONDS)),
        "min_instances": ("min_instances", _integer(0, MAX_INSTANCES)),
        "max_instances": ("max_instances", _integer(1, MAX_INSTANCES)),
        "max_duration": ("max_duration_seconds", _seconds(0.001, MAX_DURATION_SECONDS)),
        "isolation": ("isolation", _isolation),
        "network": ("network", _network),
        "compression": ("compression", _boolean),
        "log_invocations": ("log_invocations", _boolean),
        "on_disconnect": ("on_disconnect", _on_disconnect),
        "snapshot": ("snapshot", _snapshotting),
        "warm_up": ("warm_up", _warm_up),
    }
    settings = replace(defaults, **_values(where, _table(where, value), readers))
    if settings.network != ALL_NETWORK and settings.isolation != "jail":
        raise ManifestError(f"{where} network", "needs isolation = 'jail', which can restrict it")
    if settings.min_instances > settings.max_instances:
        limits = f"{settings.min_instances} > {settings.max_instances}"
        raise ManifestError(f"{where} min_instances", f"is above max_instances: {limits}")
    return settings


def _crons(where: str, value: object) -> tuple[ManifestCron, ...]:
    tables = cast("list[object]", value) if isinstance(value, list) else [value]
    if len(tables) > MAX_CRONS:
        raise ManifestError(where, f"are {len(tables)}, above {MAX_CRONS}")
    return tuple(_cron(f"{where}[{number}]", table) for number, table in enumerate(tables))


def _cron(where: str, value: object) -> ManifestCron:
    table = _table(where, value)
    names = list(_CRON_KEYS)
    for key in table:
        if key not in names:
            raise ManifestError(f"{where} {key}", _unknown(key, names))
    for key in ("workflow", "schedule"):
        if key not in table:
            raise ManifestError(where, f"lacks the key {key!r}")
    workflow = table["workflow"]
    if not isinstance(workflow, str):
        raise ManifestError(
            f"{where} workflow", f'must be a name or "main:nightly", got {workflow!r}'
        )
    values = {name: _without_dates(table[name]) for name in names[1:] if name in table}
    try:
        return ManifestCron(workflow=workflow, cron=Cron(**values))
    except CronError as error:
        raise ManifestError(f"{where} {error.where}", error.reason) from None


def _without_dates(value: object) -> Any:
    """Return a value of TOML as JSON has it."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_without_dates(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        return {key: _without_dates(item) for key, item in table.items()}
    return value


def _values(
    where: str, table: dict[str, Any], readers: dict[str, tuple[str, _Reader]]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in readers:
            raise ManifestError(f"{where} {key}", _unknown(key, list(readers)))
        argument, read = readers[key]
        values[argument] = read(f"{where} {key}", value)
    return values


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"is not a known key: {meant}known are {', '.join(known)}"


def _table(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(where, f"must be a table, got {value!r}")
    return cast("dict[str, Any]", value)


def _name(where: str, value: object) -> str:
    if not isinstance(value, str) or not APP_NAME.fullmatch(value):
        rule = "must be 1 to 40 of a-z, 0-9 and '-', begin with a letter, not end with '-'"
        raise ManifestError(where, f"{rule}, got {value!r}")
    return value


def _target(where: str, value: object) -> str:
    if not isinstance(value, str) or not TARGET.fullmatch(value):
        raise ManifestError(where, f'must be "module:attribute", got {value!r}')
    return value


def _modules(where: str, value: object) -> tuple[str, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    modules = [item for item in items if isinstance(item, str) and MODULE.fullmatch(item)]
    if len(modules) != len(items):
        raise ManifestError(where, f'must be a list of modules such as ["main"], got {value!r}')
    return tuple(modules)


def _environment(where: str, value: object) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, text in _table(where, value).items():
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ManifestError(f"{where} {name}", f"must be text in quotes, got a {kind}")
        variables[name] = text
    try:
        check_variables(variables)
    except InvalidRequestError as error:
        raise ManifestError(where, str(error)) from None
    return variables


def _boolean(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ManifestError(where, f"must be true or false, got {value!r}")
    return value


def _interface(where: str, value: object) -> Interface:
    for interface in INTERFACES:
        if value == interface:
            return interface
    raise ManifestError(where, f"must be one of {', '.join(INTERFACES)}, got {value!r}")


def _isolation(where: str, value: object) -> Isolation:
    match value:
        case "process":
            return "process"
        case "jail":
            return "jail"
        case _:
            raise ManifestError(where, f"must be 'process' or 'jail', got {value!r}")


def _network(where: str, value: object) -> str:
    try:
        return parse_network(value)
    except ValueError as error:
        raise ManifestError(where, f"{error}, got {value!r}") from None


def _on_disconnect(where: str, value: object) -> OnDisconnect:
    if value != "cancel" and value != "notify":
        raise ManifestError(where, f"must be 'cancel' or 'notify', got {value!r}")
    return "notify" if value == "notify" else "cancel"


def _snapshotting(where: str, value: object) -> Snapshotting:
    if value not in ("auto", "off"):
        raise ManifestError(where, f"must be 'auto' or 'off', got {value!r}")
    return "auto" if value == "auto" else "off"


def _warm_up(where: str, value: object) -> str | None:
    if value == "off":
        return None
    if not isinstance(value, str) or not PATH.fullmatch(value):
        rule = "must be a path such as \"/ready?deep=1\" in printable ASCII, or 'off'"
        raise ManifestError(where, f"{rule}, got {value!r}")
    return value


def _memory(where: str, value: object) -> int:
    try:
        size = parse_bytes(value)
    except ValueError as error:
        raise ManifestError(where, str(error)) from None
    if size < MIN_MEMORY_BYTES:
        raise ManifestError(where, f"must be at least {MIN_MEMORY_BYTES} bytes, got {value!r}")
    return size


def _integer(least: int, most: int) -> _Reader:
    def read(where: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ManifestError(where, f"must be {least} to {most}, got {value!r}")
        return value

    return read


def _seconds(least: float, most: float) -> _Reader:
    def read(where: str, value: object) -> float:
        seconds = _duration(where, value)
        if not least <= seconds <= most:
            raise ManifestError(where, f"must be {least:g} s to {most:g} s, got {value!r}")
        return seconds

    return read


def _duration(where: str, value: object) -> float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        with suppress(InvalidRequestError):
            return to_seconds(value)
    raise ManifestError(where, f'must be a duration such as "10s" (ms, s, m, h, d), got {value!r}')
