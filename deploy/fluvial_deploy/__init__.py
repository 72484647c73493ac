"""fluvial_deploy."""
