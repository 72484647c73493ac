"""Which isolation tiers this machine can give: the invoker's program tries them, and tells."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from fluvial.networks import NO_NETWORK

_COMMAND: Final = (sys.executable, "-m", "fluvial_invoker.tiers")
_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """What stands in the way of a jail; None: nothing."""

    jail: str | None
    jail_without_network: str | None

    def obstacle(self, network: str) -> str | None:
        """Return what stands in the way of a jail with this network."""
        return self.jail_without_network if network == NO_NETWORK else self.jail


def find_tiers(uid: int | None) -> Tiers:
    """Return what this machine can give to instances that run as a user; None: as this one."""
    options = () if uid is None else ("--uid", str(uid))
    try:
        done = subprocess.run(
            [*_COMMAND, *options], capture_output=True, timeout=_SECONDS, check=True
        )
        return Tiers(**json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError, TypeError) as error:
        problem = f"what the machine can give is not known: {type(error).__name__}"
        return Tiers(jail=problem, jail_without_network=problem)
