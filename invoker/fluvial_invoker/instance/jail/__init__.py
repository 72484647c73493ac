"""Isolation tier `jail`: what a forked child does to itself before it meets a stranger's code."""
