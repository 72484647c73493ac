"""Settings for each place where the shop runs."""
