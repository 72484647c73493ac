"""fluvial."""
