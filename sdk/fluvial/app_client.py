"""The part of `fluvial.client.Client` that is about apps, their deployments and their aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fluvial.bulk_client import BulkClient
from fluvial.control_api import items, path_part

_LOOK_SECONDS: Final = 120.0  # for a look at every run that the store has


class AppClient(BulkClient):
    """Apps, through one control API."""

    def apps(self) -> list[dict[str, Any]]:
        """Return all apps."""
        return items(self._api.get("/v1/apps"), "apps")

    def app(self, name: str) -> dict[str, Any]:
        """Return one app."""
        return self._api.get(_app(name))

    def deployments(self, app: str | None = None) -> list[dict[str, Any]]:
        """Return deployments, newest first."""
        return items(self._api.get("/v1/deployments", app=app), "deployments")

    def deployment(self, deployment: str) -> dict[str, Any]:
        """Return one deployment."""
        return self._api.get(f"/v1/deployments/{path_part(deployment)}")

    def delete_deployment(
        self, deployment: str, *, force: bool = False, when_unused: bool = False
    ) -> dict[str, Any]:
        """Delete a deployment; return its `state`: deleted, or retiring.

        Args:
            deployment: which.
            force: also while ended runs are kept that ran on it; never while live ones do.
            when_unused: where runs need it, delete it after the last of them.

        Raises:
            ProblemError: `deployment_in_use` while runs need it or an alias stands on it.
        """
        return self._api.delete(
            f"/v1/deployments/{path_part(deployment)}",
            timeout_seconds=_LOOK_SECONDS,
            force=force,
            when_unused=when_unused,
        )

    def keep_deployment(self, deployment: str) -> dict[str, Any]:
        """Keep a deployment that was to be deleted after its last run; return it."""
        return self._api.post(f"/v1/deployments/{path_part(deployment)}/keep", {})

    def set_app(self, app: str, **settings: Any) -> dict[str, Any]:
        """Change settings of an app; return the app.

        Args:
            app: its name.
            settings: `keep_deployments`, `keep_deployments_for`, `pin_for` (None: as the platform
                has it), `pin_cookie`.
        """
        return self._api.post(f"{_app(app)}/settings", settings)

    def promote(self, app: str, deployment: str) -> dict[str, Any]:
        """Make a deployment the app's production; return the app."""
        return self._api.post(f"{_app(app)}/promote", {"deployment": deployment})

    def rollback(self, app: str, deployment: str | None = None) -> dict[str, Any]:
        """Go back to the previous production, or to the deployment that is named; return the app.
        A second rollback to the previous one undoes the first."""
        body = {} if deployment is None else {"deployment": deployment}
        return self._api.post(f"{_app(app)}/rollback", body)

    def start_rollout(
        self, app: str, deployment: str, stages: Sequence[int], *, every: str | None = None
    ) -> dict[str, Any]:
        """Make a deployment the app's production in stages; return the rollout.

        Args:
            app: whose production.
            deployment: where to.
            stages: percent of clients, rising.
            every: how long each stage lasts, such as "10m"; None: until it is approved.
        """
        body = {"deployment": deployment, "stages": list(stages), "every": every}
        return self._api.post(f"{_app(app)}/rollout", body)

    def rollout(self, app: str) -> dict[str, Any]:
        """Return the rollout under way, or the last one."""
        return self._api.get(f"{_app(app)}/rollout")

    def approve_rollout(self, app: str) -> dict[str, Any]:
        """Begin the next stage now; behind the last one, move production. Return the rollout."""
        return self._api.post(f"{_app(app)}/rollout/approve", {})

    def abort_rollout(self, app: str, *, reason: str = "") -> dict[str, Any]:
        """Send all clients to the old deployment again; return the rollout."""
        return self._api.post(f"{_app(app)}/rollout/abort", {"reason": reason})

    def aliases(self, app: str) -> list[dict[str, Any]]:
        """Return where the app's aliases stand, production first."""
        return items(self._api.get(f"{_app(app)}/aliases"), "aliases")

    def set_alias(self, app: str, alias: str, deployment: str) -> dict[str, Any]:
        """Move an alias other than production, made if need be; return it."""
        path = f"{_app(app)}/aliases/{path_part(alias)}"
        return self._api.post(path, {"deployment": deployment})

    def remove_alias(self, app: str, alias: str) -> None:
        """Remove an alias other than production."""
        self._api.delete(f"{_app(app)}/aliases/{path_part(alias)}")

    def domains(self, app: str) -> list[dict[str, Any]]:
        """Return the app's custom domains."""
        return items(self._api.get(f"{_app(app)}/domains"), "domains")

    def add_domain(self, app: str, host: str) -> dict[str, Any]:
        """Let a host name lead to the app's production; return the domain.

        Raises:
            ProblemError: `domain_conflict`: another app has it.
        """
        return self._api.post(f"{_app(app)}/domains", {"host": host})

    def remove_domain(self, app: str, host: str) -> None:
        """Remove a custom domain from the app."""
        self._api.delete(f"{_app(app)}/domains/{path_part(host)}")

    def history(
        self, app: str, alias: str | None = None, *, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return how the app's aliases moved, newest first, as far as that is kept."""
        found = self._api.get(f"{_app(app)}/history", alias=alias, limit=limit)
        return items(found, "moves")


def _app(name: str) -> str:
    return f"/v1/apps/{path_part(name)}"
