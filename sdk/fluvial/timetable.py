"""The timetable: all crons of a bundle, checked against the workflows that it has registered.

It is made once, at deploy, after the bundle was imported: what a run would fail on in the night
(arguments that do not fit, a workflow that is not there) refuses the deploy.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

from fluvial.codec import encode_json
from fluvial.crons import MAX_CRONS, Cron, CronSpec, Tick, specified
from fluvial.errors import CronError, SerializationError
from fluvial.type_hints import hints_of

if TYPE_CHECKING:
    from fluvial.workflows import Workflow

MAX_BYTES: Final = 96 * 1024  # of all crons as JSON: they share a frame with names of functions
_EXAMPLE: Final = {"cron": "x", "at": "2020-01-01T00:00:00+00:00"}


def timetable(
    workflows: Mapping[str, Workflow[..., Any]], manifest: Iterable[tuple[str, Cron]] = ()
) -> list[CronSpec]:
    """Return the crons of `workflows`, and those of the manifest: (workflow, cron).

    Raises:
        CronError: a cron does not fit its workflow, or two have one name.
    """
    crons = [
        _spec(workflow, cron)
        for _, workflow in sorted(workflows.items())
        for cron in workflow.crons
    ]
    crons += [_spec(_find(workflows, target), cron) for target, cron in manifest]
    if len(crons) > MAX_CRONS:
        raise CronError("count", f"is {len(crons)} in this bundle, above {MAX_CRONS}")
    size = len(json.dumps([spec.to_dict() for spec in crons]))
    if size > MAX_BYTES:
        raise CronError("args", f"of all crons have {size} bytes as JSON, above {MAX_BYTES}")
    _check_names(crons)
    return sorted(crons, key=lambda spec: spec.name)


def _find(workflows: Mapping[str, Workflow[..., Any]], target: str) -> Workflow[..., Any]:
    """Return the workflow that a manifest names by its name or as `module:function`."""
    by_origin = {workflow.origin: workflow for workflow in workflows.values()}
    found = workflows.get(target) or by_origin.get(target)
    if found is None:
        known = ", ".join(sorted({*workflows, *by_origin})) or "none"
        raise CronError("workflow", f"{target!r} is not registered by this bundle; known: {known}")
    return found


def _spec(workflow: Workflow[..., Any], cron: Cron) -> CronSpec:
    parameter = _tick_parameter(workflow)
    spec = specified(cron, workflow.name, parameter)
    if parameter in spec.kwargs:
        raise CronError("kwargs", f"give {parameter!r}, which {workflow.name!r} gets the tick by")
    given = {**spec.kwargs, **({parameter: _EXAMPLE} if parameter else {})}
    try:
        workflow.signature.decode_call(encode_json({"args": spec.args, "kwargs": given}))
    except SerializationError as error:
        raise CronError(error.path, f"of {spec.name!r}: {error.reason}") from error
    return spec


def _tick_parameter(workflow: Workflow[..., Any]) -> str | None:
    hints = hints_of(workflow.function)
    found = [
        parameter
        for parameter in workflow.signature.parameters.parameters.values()
        if _is_tick(hints.get(parameter.name))
    ]
    if len(found) > 1:
        raise CronError("tick", f"is wanted by {len(found)} parameters of {workflow.name!r}")
    if not found:
        return None
    (parameter,) = found
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise CronError(
            "tick", f"cannot be given by name to {parameter.name!r} of {workflow.name!r}"
        )
    return parameter.name


def _is_tick(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return Tick in get_args(annotation)
    return annotation is Tick


def _check_names(crons: list[CronSpec]) -> None:
    seen: dict[str, CronSpec] = {}
    for spec in crons:
        other = seen.setdefault(spec.name, spec)
        if other is not spec:
            raise CronError(
                "name",
                f"{spec.name!r} is that of two crons, of workflow {other.workflow!r} at"
                f" {other.schedule!r} and of {spec.workflow!r} at {spec.schedule!r}: name one",
            )
