"""fluvial_invoker."""
