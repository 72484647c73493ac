"""A simulation of scheduling: the gateway's own decisions, under a clock that costs nothing."""
