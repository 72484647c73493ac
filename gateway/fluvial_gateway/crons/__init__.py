"""Crons: which ticks have come, what becomes of each, and the runs that are started for them."""
