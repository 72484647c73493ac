"""pypiserver as its authors publish it: uploads and downloads, in the folder that is named."""

import os

from pypiserver import app as make_app

app = make_app(
    roots=[os.environ.get("PYPI_PACKAGES", "/nonexistent")],
    password_file=".",
    authenticate=[],
    disable_fallback=True,
    overwrite=True,
)
