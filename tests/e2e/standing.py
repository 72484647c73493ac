"""What a platform has, before and after a mistake: a mistake changes nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.installation import App, Platform

_KEPT = ("blobs", "bundles", "layers", "keyring")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything that a deploy or a start adds to."""

    apps: dict[str, tuple[str, str | None]]  # name → production, previous
    deployments: frozenset[str]
    runs: frozenset[str]
    files: frozenset[str]


def standing(platform: Platform) -> Standing:
    """Return what the platform has now; also files whose names are hidden."""
    with platform.api() as api:
        apps = api.get("/v1/apps").raise_for_status().json()["apps"]
        deployments = api.get("/v1/deployments", params={"limit": 1000}).json()["deployments"]
        runs = api.get("/v1/runs", params={"limit": 500}).raise_for_status().json()["runs"]
    files = [path for kind in _KEPT for path in (platform.home / kind).iterdir()]
    return Standing(
        apps={app["app"]: (app["production"], app["previous"]) for app in apps},
        deployments=frozenset(found["deployment"] for found in deployments),
        runs=frozenset(run["run_id"] for run in runs),
        files=frozenset(str(path.relative_to(platform.home)) for path in files),
    )


@contextmanager
def unharmed(platform: Platform, neighbour: App) -> Generator[None]:
    """The block is a mistake: nothing is half done after it, and another app answers."""
    before = standing(platform)
    yield
    assert standing(platform) == before
    with neighbour.client() as client:
        assert client.post("/", content=b"12345").text == "5 bytes"
