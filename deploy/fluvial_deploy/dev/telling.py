"""What `fluvial dev` says: for people as talk and lines of the app, for programs as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fluvial_deploy.cli.output import data, data_json, printable, say, say_dim, say_error
from fluvial_deploy.dev.moving import Moved

_NAMED: Final = 5  # changed files, for people
_QUIET: Final = ("debug", "info")


class Teller:
    """Tells events, in the order in which they happen."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def ready(self, *, home: str, control: str, folder: str) -> None:
        """The platform runs; nothing is deployed yet."""
        if not self._tell("ready", home=home, control=control):
            where = f"  control   {control}\n  commands  FLUVIAL_HOME={home} fluvial …"
            say(f"watching {folder}\n{where}")

    def note(self, text: str) -> None:
        """Something that is good to know."""
        if not self._tell("note", text=text):
            say(text)

    def build_log(self, line: str) -> None:
        """A line of a build."""
        if not self._tell("build", text=line):
            say_dim(f"  {line}")

    def changed(self, paths: Sequence[str]) -> None:
        """Files have changed that a deploy is to bring."""
        if not self._tell("changed", paths=list(paths)):
            more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
            say_dim(f"changed: {', '.join(paths[:_NAMED])}{more}")

    def deployed(self, *, deployment: str, urls: Sequence[str], created: bool, ms: int) -> None:
        """The code of now answers."""
        if self._tell("deployed", deployment=deployment, urls=urls, created=created, ms=ms):
            return
        what = "serving" if created else "nothing has changed: serving"
        say(f"{what} {deployment} at {' and '.join(urls)} ({ms} ms)")

    def failed(self, *, code: str, message: str, serving: str | None) -> None:
        """The code of now cannot be deployed; what was deployed last goes on."""
        if self._tell("failed", code=code, message=message, serving=serving):
            return
        say_error(message, code=code, as_json=False)
        say(f"still serving {serving}" if serving else "nothing is served until this is mended")

    def run(self, moved: Moved) -> None:
        """What became of a live run."""
        fields = {"run_id": moved.run_id, "workflow": moved.workflow, "detail": moved.detail}
        if self._tell(f"run_{moved.outcome}", **fields):
            return
        if moved.outcome == "moved":
            say(f"{moved.run_id} ({moved.workflow}) goes on with this code")
        else:
            say(f"{moved.run_id} ({moved.workflow}) stays on its deployment:\n{moved.detail}")

    def log(self, record: Mapping[str, Any]) -> None:
        """A record of the app's log."""
        level = str(record.get("level", "info"))
        if record.get("kind") == "instance" and level in _QUIET:
            return  # that instances come and go is of no interest here
        if not self._tell("log", record=dict(record)):
            mark = "" if level == "info" else f"{level}: "
            data(f"{_clock(record)} {mark}{printable(str(record.get('message', '')))}")

    def _tell(self, event: str, **fields: Any) -> bool:
        if self._as_json:
            data_json({"event": event, **fields})
        return self._as_json


def _clock(record: Mapping[str, Any]) -> str:
    """Return a record's time of day in this machine's zone."""
    return datetime.fromisoformat(str(record["time"])).astimezone().strftime("%H:%M:%S")
