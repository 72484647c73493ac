"""Crons: what starts runs of a workflow by the clock, and how it is declared.

A `Cron` is what people write, at `@workflow(cron=…)` or as `[[tool.fluvial.cron]]`. A `CronSpec` is
one that was checked against its workflow, as builds report it and deployments hold it. Its
arguments stand there in clear, like the rest of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, cast, get_args

from fluvial.durations import Duration, to_seconds
from fluvial.errors import CronError, InvalidRequestError
from fluvial.registry import MAX_NAME_CHARACTERS

Overlap = Literal["skip", "allow", "queue", "replace"]
"""What happens at a tick while the cron's last run still goes on."""
CatchUp = Literal["skip", "one", "all"]
"""What happens to the ticks that nobody was there for."""

MAX_CRONS: Final = 100  # of one app
MAX_ARGUMENT_BYTES: Final = 4 * 1024  # of one cron, as JSON; what is larger belongs into a file
MAX_CATCH_UP: Final = 500
MAX_WINDOW_SECONDS: Final = 31 * 86_400
MAX_JITTER_SECONDS: Final = 3600
CRON_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?")
_MAX_DEPTH: Final = 20
_IDENTITY_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Cron:
    """Starts runs of a workflow by the clock.

    Args:
        schedule: five cron fields (six with seconds first), `@daily` and the like, or `@every 10m`.
        name: names the cron in its app; the workflow's name where it is not given.
        timezone: whose wall clock the schedule is about.
        overlap: at a tick while the last run still goes on: `skip` the tick, `allow` both, `queue`
            one tick until it has ended, or `replace` it: cancel it, then start.
        catch_up: of ticks that were missed: `skip` all, start `one` run for the last of them, or
            start `all` of them.
        catch_up_limit: at most so many of `all`: the last ones.
        catch_up_window: none of `all` that is older.
        jitter: each tick starts later by a time below this, always the same for one tick.
        args: the run's positional arguments, as JSON has values.
        kwargs: the run's keyword arguments, as JSON has values.

    Raises:
        CronError: something of it is wrong; the message names the field and what it may be.
    """

    schedule: str
    _: KW_ONLY
    name: str | None = None
    timezone: str = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    catch_up_limit: int = 100
    catch_up_window: Duration = "24h"
    jitter: Duration = 0
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        # Not at the top: a bundle without crons needs no parser of them.
        from fluvial.schedules import Schedule

        interval = Schedule(self.schedule, self.timezone).interval_seconds
        if self.name is not None:
            check_name(self.name)
        _one_of("overlap", self.overlap, get_args(Overlap))
        _one_of("catch_up", self.catch_up, get_args(CatchUp))
        _check_catch_up(self)
        jitter = _seconds("jitter", self.jitter, MAX_JITTER_SECONDS)
        if interval is not None and jitter >= interval:
            raise CronError("jitter", f"must be below the interval of {interval} s, got {jitter:g}")
        _check_arguments(self.args, self.kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What a run was started for; a workflow gets it by a parameter with this annotation."""

    cron: str
    at: datetime  # when the tick was due by its schedule, with the offset of the cron's time zone


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSpec:
    """A cron of a deployment, complete."""

    name: str
    workflow: str
    schedule: str
    timezone: str
    overlap: Overlap
    catch_up: CatchUp
    catch_up_limit: int
    catch_up_window_seconds: float
    jitter_seconds: float
    args: list[Any]
    kwargs: dict[str, Any]
    tick: str | None  # the workflow's parameter that is given the tick

    @property
    def identity(self) -> str:
        """Equal for crons whose ticks are the same ones: of another workflow, schedule or time
        zone, a cron begins anew."""
        parts = json.dumps([self.name, self.workflow, self.schedule, self.timezone])
        return hashlib.sha256(parts.encode()).hexdigest()[:_IDENTITY_CHARACTERS]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for msgpack or JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> CronSpec:
        """Return the spec that `to_dict` made `plain` from."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__})

    @classmethod
    def parse(cls, plain: object) -> CronSpec:
        """Return the spec that a stranger says `to_dict` made `plain` from.

        Raises:
            CronError: a value is missing, or may not be what it is.
        """
        if not isinstance(plain, dict):
            raise CronError("spec", f"is not a map but {plain!r:.100}")
        values = cast("dict[str, Any]", plain)
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise CronError("spec", f"lacks {', '.join(missing)}")
        workflow, tick = values["workflow"], values["tick"]
        if not _is_name(workflow) or not (tick is None or _is_name(tick)):
            raise CronError("spec", "names no workflow, or no parameter")
        cron = Cron(
            values["schedule"],
            name=check_name(values["name"]),
            timezone=values["timezone"],
            overlap=values["overlap"],
            catch_up=values["catch_up"],
            catch_up_limit=values["catch_up_limit"],
            catch_up_window=values["catch_up_window_seconds"],
            jitter=values["jitter_seconds"],
            args=values["args"],
            kwargs=values["kwargs"],
        )
        return specified(cron, workflow, tick)


def specified(cron: Cron, workflow: str, tick: str | None = None) -> CronSpec:
    """Return a cron as one of a workflow; `tick` names the parameter that is given the tick.

    Raises:
        CronError: it has no name, and the workflow's cannot be one.
    """
    return CronSpec(
        name=cron.name if cron.name is not None else check_name(workflow),
        workflow=workflow,
        schedule=" ".join(cron.schedule.split()),
        timezone=cron.timezone,
        overlap=cron.overlap,
        catch_up=cron.catch_up,
        catch_up_limit=cron.catch_up_limit,
        catch_up_window_seconds=to_seconds(cron.catch_up_window),
        jitter_seconds=to_seconds(cron.jitter),
        args=list(cron.args),
        kwargs=dict(cron.kwargs),
        tick=tick,
    )


def check_name(name: object) -> str:
    """Return a cron's name.

    Raises:
        CronError: it is none.
    """
    if not isinstance(name, str) or not CRON_NAME.fullmatch(name):
        raise CronError(
            "name",
            f"must be 1 to 100 letters, digits and any of '_', '.', '-' in between, got {name!r}"
            " (where none is given, it is the workflow's)",
        )
    return name


def _is_name(value: object) -> bool:
    """Whether a value may be the name of something in Python; of a cron much less may."""
    return isinstance(value, str) and len(value) <= MAX_NAME_CHARACTERS and _is_scalar(value)


def _one_of(where: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CronError(where, f"must be one of {', '.join(choices)}, got {value!r}")


def _check_catch_up(cron: Cron) -> None:
    limit: object = cron.catch_up_limit
    if type(limit) is not int or not 1 <= limit <= MAX_CATCH_UP:
        raise CronError("catch_up_limit", f"must be 1 to {MAX_CATCH_UP}, got {limit!r}")
    _seconds("catch_up_window", cron.catch_up_window, MAX_WINDOW_SECONDS)
    if cron.catch_up == "all" and cron.overlap not in ("allow", "queue"):
        raise CronError(
            "catch_up",
            f"= 'all' starts many runs, of which overlap = {cron.overlap!r} would let one go on:"
            " choose overlap = 'allow' (at once) or 'queue' (one after the other)",
        )


def _seconds(where: str, value: object, most: float) -> float:
    if isinstance(value, bool):
        raise CronError(where, f"must be a duration, got {value!r}")
    try:
        seconds = to_seconds(cast("Duration", value), where)
    except (InvalidRequestError, TypeError, ValueError) as error:
        raise CronError(where, f"must be a duration, got {value!r}: {error}") from None
    if seconds > most:
        raise CronError(where, f"must be at most {most:g} s, got {value!r}")
    return seconds


def _check_arguments(args: object, kwargs: object) -> None:
    if not isinstance(args, list | tuple):
        raise CronError("args", f"must be a list, got {args!r:.100}")
    if not isinstance(kwargs, dict):
        raise CronError("kwargs", f"must be a dict of names to values, got {kwargs!r:.100}")
    arguments = cast("list[object]", [args, kwargs])
    for where, value in zip(("args", "kwargs"), arguments, strict=True):
        _check_json(value, where, 0)
    size = len(json.dumps(arguments).encode())
    if size > MAX_ARGUMENT_BYTES:
        raise CronError("args", f"have {size} bytes as JSON, above {MAX_ARGUMENT_BYTES}")


def _check_json(value: object, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise CronError(where, f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, list | tuple):
        for index, item in enumerate(cast("Sequence[object]", value)):
            _check_json(item, f"{where}[{index}]", depth + 1)
    elif isinstance(value, dict):
        for name, item in cast("dict[object, object]", value).items():
            if not isinstance(name, str) or not _is_scalar(name):
                raise CronError(where, f"has the key {name!r}, which is not text")
            _check_json(item, f"{where}[{name!r}]", depth + 1)
    elif not _is_scalar(value):
        raise CronError(
            where, f"is {value!r:.100}: a cron's arguments are values that JSON has (64 bits)"
        )


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None
