"""fluvial_gateway."""
