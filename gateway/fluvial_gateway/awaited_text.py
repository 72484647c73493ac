"""How it is told what a run waits for: one plain sentence, and the commands that would move it.

Times are RFC 3339 in UTC, with how far they are away from now. Tokens of hooks that were made are
secrets: whoever has one may resume the hook.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from fluvial.hook_tokens import is_secret
from fluvial.webhook_requests import HOOKS_PATH
from fluvial_gateway.activity import Room
from fluvial_gateway.awaited import Awaited, Kind
from fluvial_gateway.explaining import Explanation
from fluvial_queue.contract import RunRecord, RunStatus

_NAMED: Final = 3  # of the other things that a run waits for, as many are named in the sentence
_MAX_REASON_CHARACTERS: Final = 300
_SECOND: Final = 1000
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (_SECOND, "s"))
_ENDS: Final[Mapping[RunStatus, str]] = {
    RunStatus.COMPLETED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "was cancelled",
    RunStatus.TERMINATED: "was terminated",
}
_TRACEBACK: Final = "Traceback (most recent call last)"
# What helps a run that is in trouble, by the code of its pause.
_RESUME: Final = "fluvial runs resume {run}"
_RESUME_ON_LATEST: Final = "fluvial runs resume {run} --deployment latest"
_CURES: Final[Mapping[str, tuple[str, str]]] = {
    "": ("{command} lets it go on", _RESUME),
    "poison": ("once the cause is mended, {command} gives it its chances again", _RESUME),
    "exhausted": ("{command} gives the step its attempts again", _RESUME),
    "diverged": ("promote code that matches its log, then {command}", _RESUME_ON_LATEST),
    "invalid_proposal": ("promote code that is sound, then {command}", _RESUME_ON_LATEST),
    "import_failed": ("promote code that can be imported, then {command}", _RESUME_ON_LATEST),
    "bundle_missing": ("deploy the app again, then {command}", _RESUME_ON_LATEST),
    "deployment_not_found": ("{command} moves it to the app's production", _RESUME_ON_LATEST),
    "start_failed": ("once the cause is mended, {command} lets it go on", _RESUME),
    "too_large": ("only {command} ends it, as it cannot go on", "fluvial runs terminate {run}"),
    "keys_frozen": ("{command} lets it go on", "fluvial keys thaw {app}"),
    "key_missing": ("once the key file is back, {command} lets it go on", _RESUME),
    "key_destroyed": ("only {command} ends it, as it cannot go on", "fluvial runs terminate {run}"),
    "other": ("once the cause is mended, {command} lets it go on", _RESUME),
}


def sentence(explanation: Explanation, *, shows_tokens: bool) -> str:
    """Return in one sentence what a run waits for, since when, and what would move it."""
    teller = _Teller(shows_tokens=shows_tokens)
    told = f"It {teller.cancelling(explanation)}{teller.clause(explanation)}"
    remedy = teller.remedy(explanation.leaf)
    others = teller.others(explanation)
    return f"{'; '.join(part for part in (told, remedy, others) if part)}."


def commands(awaited: Awaited, run: RunRecord, *, shows_tokens: bool) -> list[str]:
    """Return the commands that would move a run on from one thing that it waits for."""
    run_id = run.run_id
    match awaited.kind:
        case "pause":
            return [_cure(awaited)[1].format(run=run_id, app=run.app)]
        case "start":
            return [f"fluvial runs wake {run_id}"]
        case "retry":
            return [f"fluvial runs retry {run_id}"]
        case "sleep" | "timeout":
            return [f"fluvial runs wake {run_id} --timer {awaited.operation}"]
        case "hook":
            if not shows_tokens and is_secret(awaited.token):
                return [f"fluvial runs why {run_id} --data"]
            if awaited.is_webhook:
                return []
            if awaited.name:
                return [f"fluvial runs send {run_id} {awaited.name} JSON"]
            return [f"fluvial hooks resume {shlex.quote(awaited.token)} JSON --app {run.app}"]
        case "child":
            return [f"fluvial runs why {awaited.run_id}"]
        case "end":
            return [f"fluvial runs why {awaited.run_id}"] if awaited.run_id else []
        case "owner" | "turn" | "step":
            return []


class _Teller:
    """Words for one explanation."""

    def __init__(self, *, shows_tokens: bool) -> None:
        self._shows_tokens = shows_tokens

    def cancelling(self, explanation: Explanation) -> str:
        """Return how the sentence begins for a run that was asked to cancel."""
        request = explanation.cancelled
        if request is None:
            return ""
        reason = request.meta.get("reason")
        why = f" ({_plain(str(reason))})" if reason else ""
        return f"was asked to cancel {_at(request.at_ms, explanation.now_ms)}{why}, cleans up, and "

    def clause(self, explanation: Explanation) -> str:
        """Return what a run does, for behind "it"."""
        first, now_ms, run = explanation.first, explanation.now_ms, explanation.run
        since = _since(first.since_ms, now_ms)
        match first.kind:
            case "end":
                return _ended(run, first, now_ms)
            case "pause":
                return _paused(first, now_ms)
            case "owner":
                return "stands still, as no gateway owns its partition"
            case "start":
                return f"begins {_at(first.until_ms, now_ms)}, as its start is delayed"
            case "turn" if not first.state:
                return "is about to go on with its own code"
            case "turn" | "step":
                return self._invocation(explanation)
            case "retry":
                failed = f"attempt {first.attempt - 1} failed{_because(first.problem)}"
                return f"executes {_step(first)} again {_at(first.until_ms, now_ms)}, as {failed}"
            case "sleep":
                return f"sleeps until {_moment(first.until_ms, now_ms)} (timer {first.operation})"
            case "timeout":
                until = _moment(first.until_ms, now_ms)
                return f"waits until {until}, when timeout {first.operation} fires"
            case "hook":
                what = "a request to" if first.is_webhook else "a payload for"
                return f"waits for {what} {self._hook(first)}, open {since}"
            case "child":
                return f"waits for {_child(first)}, {self._of_child(explanation)}"

    def _of_child(self, explanation: Explanation) -> str:
        child = explanation.child
        if child is None:
            return "which is about to be started"
        went_on = (
            "" if child.run.run_id == explanation.first.run_id else f"now {child.run.run_id}, "
        )
        return f"{went_on}which {self.cancelling(child)}{self.clause(child)}"

    def _invocation(self, explanation: Explanation) -> str:
        first, now_ms = explanation.first, explanation.now_ms
        what = _step(first) if first.kind == "step" else "its own code"
        since = _since(first.since_ms, now_ms)
        match first.state:
            case "executing":
                limit = (
                    f", until {_moment(first.until_ms, now_ms)} at most" if first.until_ms else ""
                )
                return f"waits for {what}, executing {since} on {first.instance}{limit}"
            case "reading":
                return "waits for its log to be read, to go on with its own code from there"
            case "instance":
                return f"waits {since} for an instance to execute {what}{_room(explanation.room)}"
            case "place":
                deployment = first.activity.deployment if first.activity is not None else ""
                return (
                    f"waits for a place for {what}, as {deployment} has as many invocations"
                    " under way as it may"
                )
            case "refused":
                return (
                    f"waits for {what}, which could not be executed{_because(first.problem)} and is"
                    " tried again soon"
                )
            case "held":
                doubt = (
                    "as its gateway starts nothing now: it is stopping, or its lease is in doubt"
                )
                return f"waits for {what}, {doubt}"
            case _:
                owner = explanation.owner
                if owner is not None:
                    return f"waits for {what}, which is up to the gateway {owner}, {since}"
                return f"waits for {what}, which is about to be executed"

    def _hook(self, awaited: Awaited) -> str:
        what = "webhook" if awaited.is_webhook else "hook"
        if awaited.name:
            return f"its {what} {awaited.name}"
        if not self._shows_tokens and is_secret(awaited.token):
            return f"its {what} {awaited.operation}, whose token is secret"
        return f"its {what} {awaited.token}"

    def remedy(self, explanation: Explanation) -> str:
        """Return what would move the run at which the chain of children ends."""
        first, run = explanation.first, explanation.run
        told = commands(first, run, shows_tokens=self._shows_tokens)
        command = f"`{told[0]}`" if told else ""
        match first.kind:
            case "pause":
                return _cure(first)[0].format(command=command)
            case "owner":
                return "a gateway that runs takes it over within half a minute"
            case "start":
                return f"{command} lets it begin now"
            case "retry":
                return f"{command} makes it now"
            case "sleep":
                return f"{command} ends that now"
            case "timeout":
                return f"{command} fires it now"
            case "hook":
                if not self._shows_tokens and is_secret(first.token):
                    return f"{command} shows it"
                if first.is_webhook:
                    return f"its URL is that of the app, and {HOOKS_PATH}{first.token}"
                return f"{command} delivers one"
            case "end" if first.run_id:
                return f"{command} says how that one stands"
            case "turn" | "step" | "child" | "end":
                return ""

    def others(self, explanation: Explanation) -> str:
        """Return what else the run waits for."""
        others, now_ms = explanation.awaited[1:], explanation.now_ms
        if not others:
            return ""
        named = [self._short(awaited, now_ms) for awaited in others[:_NAMED]]
        if len(others) > _NAMED:
            named.append(f"{len(others) - _NAMED} more")
        things = "1 other thing is" if len(others) == 1 else f"{len(others)} other things are"
        return f"{things} open too: {', '.join(named)}"

    def _short(self, awaited: Awaited, now_ms: int) -> str:
        until = _moment(awaited.until_ms, now_ms) if awaited.until_ms else "now"
        words: dict[Kind, Callable[[], str]] = {
            "step": lambda: _step(awaited),
            "retry": lambda: f"{_step(awaited)} again at {until}",
            "sleep": lambda: f"a sleep until {until}",
            "timeout": lambda: f"a timeout at {until}",
            "hook": lambda: self._hook(awaited),
            "child": lambda: _child(awaited),
            "turn": lambda: "its own code",
            "pause": lambda: "its pause",
        }
        return words[awaited.kind]()


def _ended(run: RunRecord, first: Awaited, now_ms: int) -> str:
    when = _at(first.since_ms, now_ms)
    if first.run_id:
        return f"went on as {first.run_id} {when}"
    return f"{_ENDS[run.status]} {when} and waits for nothing"


def _paused(first: Awaited, now_ms: int) -> str:
    by = f" by {_plain(first.by)}" if first.by else ""
    when = _at(first.since_ms, now_ms) if first.since_ms is not None else ""
    reason = _plain(first.problem)
    return f"was paused{by} {when}".rstrip() + (f" ({reason})" if reason else "")


def _cure(awaited: Awaited) -> tuple[str, str]:
    return _CURES.get(awaited.code, _CURES["other"])


def _step(awaited: Awaited) -> str:
    attempt = f", attempt {awaited.attempt}" if awaited.attempt > 1 else ""
    return f"its step {_plain(awaited.name)} (operation {awaited.operation}{attempt})"


def _child(awaited: Awaited) -> str:
    return f"its child {awaited.run_id} ({_plain(awaited.name)})"


def _room(room: Room | None) -> str:
    if room is None:
        return ""
    if room.problem:
        return f": none could be started{_because(room.problem)}, which is tried again"
    if room.most and room.instances >= room.most:
        running = f"{room.instances} of at most {room.most} run and have no room"
        return f": {running}, with {room.waiting} in the queue"
    return ": one is being started" if room.starting else ""


def _because(problem: str) -> str:
    return f" ({_plain(problem)})" if problem else ""


def _plain(text: str) -> str:
    """Return the line that matters of a text that comes from an app, within bounds."""
    lines = text.strip().splitlines() or [""]
    line = lines[0]
    before, traceback, _ = line.partition(_TRACEBACK)
    if traceback:
        line = before + lines[-1].strip()
    if len(line) > _MAX_REASON_CHARACTERS:
        return line[:_MAX_REASON_CHARACTERS] + "…"
    return line


def _moment(at_ms: int | None, now_ms: int) -> str:
    """Return a moment, and how far away it is."""
    if at_ms is None:
        return "an unknown time"
    away_ms = at_ms - now_ms
    away = f"in {_span(away_ms)}" if away_ms >= _SECOND else "now"
    if away_ms <= -_SECOND:
        away = f"{_span(-away_ms)} ago"
    return f"{_time(at_ms)} ({away})"


def _at(at_ms: int | None, now_ms: int) -> str:
    return f"at {_moment(at_ms, now_ms)}"


def _since(at_ms: int | None, now_ms: int) -> str:
    if at_ms is None:
        return "since some time"
    return f"for {_span(max(0, now_ms - at_ms))} (since {_time(at_ms)})"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(milliseconds: int) -> str:
    """Return a span in its greatest unit, and the next one where that says something."""
    for index, (size, unit) in enumerate(_UNITS):
        if milliseconds >= size:
            text = f"{milliseconds // size} {unit}"
            if index + 1 < len(_UNITS) and milliseconds // size < 10:
                smaller, name = _UNITS[index + 1]
                rest = milliseconds % size // smaller
                return f"{text} {rest} {name}" if rest else text
            return text
    return f"{milliseconds} ms"
