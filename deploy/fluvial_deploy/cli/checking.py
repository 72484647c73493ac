"""Replay checks on the command line: what was found, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.output import data_json, say, table
from fluvial_deploy.cli.uploading import spinner

if TYPE_CHECKING:
    from fluvial.replay_reports import ReplayReport, RunCheck

_COLUMNS: Final = ("run_id", "workflow", "finding", "about")
_PROGRESS: Final = 100  # runs between two lines of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which runs to check, and how."""

    last: int | None = None  # the last that have ended; None: all that have not
    workflow: str | None = None
    limit: int | None = None
    inputs: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """A report, and the runs that it has something to say about."""

    deployment: str
    report: ReplayReport
    notable: list[RunCheck]

    @property
    def has_diverged(self) -> bool:
        """Whether a run would not go on."""
        return self.report.diverged > 0

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        runs = [asdict(run) for run in self.notable]
        return {"deployment": self.deployment, "report": asdict(self.report), "runs": runs}


def check_runs(deployment: str, selection: Selection) -> Checked:
    """Have the platform check runs on a deployment, and say how far it is.

    Raises:
        FluvialError: it could not be done.
    """
    from fluvial.errors import UnavailableError
    from fluvial.replay_reports import ReplayReport

    notable: list[RunCheck] = []
    with connect() as client, spinner("replaying") as log:
        found = client.replay_check(deployment, **asdict(selection))
        for count, item in enumerate(found, start=1):
            if isinstance(item, ReplayReport):
                return Checked(deployment, item, notable)
            if item.finding != "ok" or item.warnings:
                notable.append(item)
            if count % _PROGRESS == 0:
                log(f"{count} runs checked")
    raise UnavailableError("the platform did not say how the check ended: check again")


def show_notable(checked: Checked, *, as_json: bool) -> None:
    """Print what is to be looked at as data."""
    if as_json:
        data_json(checked.to_json())
    elif checked.notable:
        rows = [{**asdict(run), "about": _about(run)} for run in checked.notable]
        table(rows, _COLUMNS, as_json=False)


def talk_over(checked: Checked) -> None:
    """Say the counts, and how the first run that diverges does."""
    diverged = next((run for run in checked.notable if run.finding == "diverged"), None)
    if diverged is not None:
        say(f"\n{diverged.run_id} would diverge:\n{diverged.detail}\n")
    say(_summary(checked))


def _about(run: RunCheck) -> str:
    """Return one line about a run."""
    if run.finding == "ok":
        return "; ".join(run.warnings)
    lines = [line.strip() for line in run.detail.splitlines()]
    difference = [line for line in lines if line.startswith(("- recorded:", "+ now:"))]
    return " ".join(" ".join(difference or lines).split())


def _summary(checked: Checked) -> str:
    report = checked.report
    warned = f" ({report.with_warnings} with warnings)" if report.with_warnings else ""
    counts = [
        f"{report.ok} ok{warned}",
        f"{report.diverged} diverged",
        f"{report.unchecked} not checked",
    ]
    cut = "" if report.is_complete else "; there are more runs than the limit"
    return f"checked {report.checked} runs on {checked.deployment}: {', '.join(counts)}{cut}"
