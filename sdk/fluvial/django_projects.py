"""Where a Django project has its application: found through `manage.py` and the settings' name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fluvial.module_surveys import MAX_SOURCE_BYTES

_SETTINGS: Final = re.compile(
    r"""["']DJANGO_SETTINGS_MODULE["']\s*(?:,|\]\s*=)\s*["']([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)["']"""
)
_MODULES: Final = ("asgi", "wsgi")


def find_django(directory: Path) -> str | None:
    """Return the application of the Django project whose `manage.py` is in `directory`.

    It is looked for beside the settings and above them, since settings may be a package
    (`shop/settings/production.py`).
    """
    manage = directory / "manage.py"
    if not manage.is_file() or manage.stat().st_size > MAX_SOURCE_BYTES:
        return None
    settings = _SETTINGS.search(manage.read_text("utf-8", errors="replace"))
    package = settings.group(1).rpartition(".")[0] if settings else ""
    while package:
        for module in _MODULES:
            if (directory / package.replace(".", "/") / f"{module}.py").is_file():
                return f"{package}.{module}:application"
        package = package.rpartition(".")[0]
    return None
