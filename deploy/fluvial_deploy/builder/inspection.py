"""The program that imports a bundle once at deploy and says what it found.

It runs as a file in a fresh interpreter (`python -I -S inspection.py`), so it imports nothing of
the builder. The answer goes as JSON to a descriptor of its own: what the bundle prints is log.

    argv     the descriptor of the answer; then, where the request is to come later, the runtime
             folder and the layer, of which it imports meanwhile what bundles commonly import
    stdin    JSON {bundle, layer, runtime, entrypoint: str|null, interface: str|null,
             files: [entrypoint], workflows: [module], crons: [[workflow, {a cron}]], app,
             placeholders: [a variable that holds one], environment: {variable: value}}
    answer   {"interface", "workflows", "steps", "crons"} or {"code", "message"}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
import traceback
from types import TracebackType
from typing import Any

_MAX_MEMORY_BYTES = 2 * 1024**3
_MAX_FILE_BYTES = 256 * 1024**2  # of one that the import writes
_MAX_MESSAGE_CHARACTERS = 16_000
_SDK = ("fluvial", "fluvial.interfaces", "fluvial.timetable")
_FRAMEWORKS = ("fastapi", "flask", "pydantic")
_MAX_NAMED = 10  # variables in a message
_MAX_NAME_CHARACTERS = 128


def prepare(runtime: str, layer: str) -> None:
    """Import what bundles with this layer are likely to import; nothing else may change."""
    standard = list(sys.path)
    # As below, the platform's own SDK first, which a layer must not replace.
    for names, path in ((_SDK, [runtime]), (_FRAMEWORKS, [layer, runtime])):
        sys.path[:] = [*standard, *filter(None, path)]
        for name in names:
            # What does not import is the bundle's problem, if it wants it at all.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    sys.path[:] = standard


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer for one bundle."""
    _limit()
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["bundle"])
    standard = list(sys.path)
    layer = [request["layer"]] if request["layer"] else []
    # The platform's own SDK, imported before the bundle's code can stand in its way.
    sys.path[:] = [*standard, request["runtime"]]
    interfaces = importlib.import_module("fluvial.interfaces")
    misfit = importlib.import_module("fluvial.errors").NoEntrypointError
    sys.path[:] = [request["bundle"], *standard, *layer, request["runtime"]]
    sys.argv[:] = [""]
    entrypoint = request["entrypoint"]
    interface: str | None = None
    try:
        if entrypoint:
            interface = interfaces.load_app(entrypoint, request["interface"]).interface
        for function in request["files"]:
            interfaces.load_app(function, request["interface"])
        for module in request["workflows"]:
            importlib.import_module(module)
        crons = _timetable(request["crons"])
    except _RefusedError as refused:
        return {"code": refused.code, "message": refused.message}
    except misfit as error:
        return {"code": "no_entrypoint", "message": str(error)}
    except BaseException as error:  # noqa: BLE001 - a stranger's import may raise anything
        message = _explain(error, request["bundle"]) + _about_variables(error, request)
        return {"code": "import_failed", "message": message}
    workflows, steps = _registered()
    if interface is None and not request["files"] and not workflows:
        modules = ", ".join(request["workflows"])
        return {"code": "no_entrypoint", "message": f"{modules}: no workflow is defined there"}
    return {"interface": interface, "workflows": workflows, "steps": steps, "crons": crons}


def _limit() -> None:
    """Bound what an import may take; the time is bounded by whoever started this."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, _MAX_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))


class _RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message


def _timetable(manifest: list[Any]) -> list[dict[str, Any]]:
    """Return the crons of the workflows that the imports registered, and of the manifest."""
    if not manifest and "fluvial.registry" not in sys.modules:
        return []
    # Of the platform's own SDK, which is on the path; the builder's is not.
    crons, errors, registry, timetable = (
        importlib.import_module(f"fluvial.{name}")
        for name in ("crons", "errors", "registry", "timetable")
    )
    try:
        declared = [(workflow, crons.Cron(**cron)) for workflow, cron in manifest]
        specs = timetable.timetable(registry.registry.workflows, declared)
    except errors.CronError as error:
        raise _RefusedError(error.code, str(error)) from error
    return [spec.to_dict() for spec in specs]


def _registered() -> tuple[list[str], list[str]]:
    """Return the names of the workflows and steps that the imports registered."""
    module = sys.modules.get("fluvial.registry")
    if module is None:
        return [], []
    registry: Any = getattr(module, "registry", module)
    return sorted(registry.workflows), sorted(registry.steps)


def _explain(error: BaseException, bundle: str) -> str:
    """Return the traceback from the bundle's first line on, with paths relative to the bundle."""
    prefix = os.path.join(bundle, "")
    own = error.__traceback__
    while own is not None and not _file(own).startswith(prefix):
        own = own.tb_next
    lines = traceback.format_exception(type(error), error, own, chain=own is not None)
    text = "".join(lines).replace(prefix, "").strip()
    if isinstance(error, SystemExit):
        text += "\n(the module ended the process while it was imported)"
    return text[-_MAX_MESSAGE_CHARACTERS:]


def _about_variables(error: BaseException, request: dict[str, Any]) -> str:
    """Return what the environment may have to do with a failed import, and what to do then."""
    app, guard = request["app"], 'os.environ.get("FLUVIAL_BUILD")'
    missing = _missing_variable(error)
    if missing is not None:
        return (
            f"\n(the variable {missing} is not set: `fluvial secret set {app} {missing}` or"
            f" `fluvial env set {app} {missing}=…`, then deploy again)"
        )
    names: list[str] = request["placeholders"]
    if not names:
        return ""
    some = ", ".join(names[:_MAX_NAMED]) + (", …" if len(names) > _MAX_NAMED else "")
    return (
        f"\n(while a deploy imports the app, {some} hold placeholders: read them where they are"
        f" used, or not while {guard})"
    )


def _missing_variable(error: BaseException) -> str | None:
    """Return the name that was looked up in `os.environ` in vain."""
    if not isinstance(error, KeyError) or not error.args:
        return None
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    is_lookup = frame is not None and frame.tb_frame.f_code is type(os.environ).__getitem__.__code__
    return str(error.args[0])[:_MAX_NAME_CHARACTERS] if is_lookup else None


def _file(frame: TracebackType) -> str:
    return frame.tb_frame.f_code.co_filename


if __name__ == "__main__":
    answer_fd = int(sys.argv[1])  # before the bundle may change its arguments
    if sys.argv[2:]:
        prepare(*sys.argv[2:])
    asked: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    answer = json.dumps(main(asked)).encode()
    with open(answer_fd, "wb") as file:
        file.write(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the bundle started must not keep this process
