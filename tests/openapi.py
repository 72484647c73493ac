"""The OpenAPI document that a gateway serves, and its copy in `docs`.

`make openapi` writes the copy anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx

from tests.integration.control.gateway_process import prepared, started

COPY: Final = Path(__file__).parent.parent / "docs" / "openapi.json"


def served_document() -> dict[str, Any]:
    """Return the document of a gateway that is started for it."""
    with (
        tempfile.TemporaryDirectory(prefix="fv-") as home,
        started(prepared(Path(home))) as (_, control, _),
    ):
        document: dict[str, Any] = httpx.get(f"{control}/openapi.json").json()
        return document


def written(document: dict[str, Any]) -> str:
    """Return a document as its copy has it: in the order of the routes, a member a line."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    COPY.write_text(written(served_document()), encoding="utf-8")
