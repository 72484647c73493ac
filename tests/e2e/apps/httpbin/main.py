"""httpbin as its authors publish it: nothing here knows of Fluvial."""

from httpbin import app

__all__ = ["app"]
