"""Campaigns: real workflows on the kit's engine, under random schedules in which things break."""
