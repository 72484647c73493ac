"""Tells which process answered."""

from __future__ import annotations

import os
from typing import Any


def handler(request: Any) -> str:
    """Answer with the process id."""
    return str(os.getpid())
