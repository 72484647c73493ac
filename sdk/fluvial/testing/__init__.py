"""Tests of workflows without a server: in this process, in virtual time, step by step.

See `docs/testing.md`. The pytest plugin comes with the package: `fluvial_env` is an `Environment`
for async tests, `fluvial_sync_env` one for the others.
"""

from fluvial.testing.crashes import CrashReport, enumerate_crashes
from fluvial.testing.doubles import Call, call
from fluvial.testing.engines import Fault, Mode, PlannedFault, Point
from fluvial.testing.environment import Environment, RunUnderTest
from fluvial.testing.errors import CrashPointError, EngineNotFoundError, StuckError
from fluvial.testing.ledgers import Ledger
from fluvial.testing.logs import Log
from fluvial.testing.synchronous import SyncEnvironment, SyncRun
from fluvial.webhook_answers import WebhookAnswer

__all__ = [
    "Call",
    "CrashPointError",
    "CrashReport",
    "EngineNotFoundError",
    "Environment",
    "Fault",
    "Ledger",
    "Log",
    "Mode",
    "PlannedFault",
    "Point",
    "RunUnderTest",
    "StuckError",
    "SyncEnvironment",
    "SyncRun",
    "WebhookAnswer",
    "call",
    "enumerate_crashes",
]
