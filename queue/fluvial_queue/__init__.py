"""fluvial_queue."""
