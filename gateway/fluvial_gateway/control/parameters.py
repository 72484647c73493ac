"""Parameters that several operations have."""

from __future__ import annotations

from typing import Final

from fluvial.manifest import APP_NAME
from fluvial_gateway.control.operations import Parameter
from fluvial_gateway.control.schemas import integer, text
from fluvial_gateway.runs import LATEST, MAX_KEY_CHARACTERS
from fluvial_queue.proposals import MAX_TAG_CHARACTERS

MAX_NAME_CHARACTERS: Final = 512
MAX_CURSOR_CHARACTERS: Final = 1024

APP_IN_PATH: Final = Parameter("app", "path", text(pattern=APP_NAME.pattern), "The app's name.")
APP: Final = Parameter(
    "app", "query", text(pattern=APP_NAME.pattern), "Only what belongs to this app."
)
WORKFLOW_IN_PATH: Final = Parameter(
    "workflow",
    "path",
    text(minLength=1, maxLength=MAX_NAME_CHARACTERS),
    "The workflow's name.",
)
RUN_IN_PATH: Final = Parameter("id", "path", text(maxLength=64), "The run's id, run_….")
DEPLOYMENT_ID: Final = text("dpl_…", pattern="dpl_[0-9a-z]{24}")
NAMED_DEPLOYMENT: Final = text(
    "a deployment of the app, or `latest` for its production",
    pattern=f"{LATEST}|dpl_[0-9a-z]{{24}}",
)
DEPLOYMENT_IN_PATH: Final = Parameter("id", "path", DEPLOYMENT_ID, "The deployment's id.")
TAG_NAME: Final = text(minLength=1, maxLength=MAX_TAG_CHARACTERS)
TAG_VALUE: Final = text(maxLength=MAX_TAG_CHARACTERS)
DATA: Final = Parameter(
    "data",
    "query",
    {"type": "boolean", "default": False},
    "Decrypt the data too; needs the scope `data:read`, and is audited.",
)
IDEMPOTENCY_KEY: Final = Parameter(
    "idempotency-key",
    "header",
    text(minLength=1, maxLength=MAX_KEY_CHARACTERS),
    "Starts at most one run: the same key names the same run.",
)
RESUME_ID: Final = Parameter(
    "x-fluvial-resume-id",
    "header",
    text(minLength=1, maxLength=MAX_KEY_CHARACTERS),
    "Delivers at most once: a repetition with the same id is a duplicate.",
)
CURSOR: Final = Parameter(
    "cursor", "query", text(minLength=1, maxLength=MAX_CURSOR_CHARACTERS), "From the page before."
)


def limit(default: int, most: int) -> Parameter:
    return Parameter("limit", "query", integer(1, most, default=default), "How many at most.")
