"""All cases on one platform: the quick ones one after the other, the slow ones at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.e2e.installation import Platform, platform
from tests.failures.case import Case, Seen
from tests.failures.observing import Observer

_APPS: Final = Path(__file__).parent / "apps"
_SHORT_DEADLINE: Final = 'max_duration = "2s"\n'
_AT_ONCE: Final = 8


def observe_all(cases: Iterable[Case]) -> dict[str, Seen]:
    """Return what is seen of each case, by its name."""
    home = Path(tempfile.mkdtemp(prefix="fv-"))
    try:
        with platform(home / "home") as running:
            return _observe_all(list(cases), running, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _observe_all(cases: list[Case], running: Platform, folder: Path) -> dict[str, Seen]:
    shared = {kind: Observer(running, running.deploy(_APPS / kind)) for kind in ("loop", "threads")}
    quick = [case for case in cases if not case.is_slow]
    seen = {case.name: shared[case.app].observe(case) for case in quick}
    slow = [case for case in cases if case.is_slow]
    # An app for each: what blocks an instance would keep the other cases waiting.
    own = [_observer(case, f"slow-{place}", running, folder) for place, case in enumerate(slow)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(Observer.observe, own, slow)
        return seen | dict(zip((case.name for case in slow), found, strict=True))


def _observer(case: Case, name: str, running: Platform, folder: Path) -> Observer:
    bundle = folder / name
    shutil.copytree(_APPS / case.app, bundle)
    with (bundle / "fluvial.toml").open("a") as manifest:
        manifest.write(_SHORT_DEADLINE)
    return Observer(running, running.deploy(bundle, "--name", name))
