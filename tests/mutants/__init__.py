"""Mutants: small bugs in the sequencer, the stores and the replay code, which tests must notice.

Coverage says that a line has run; a mutant that is killed says that somebody would have minded.
The list is written by hand, where correctness lives, so that each mutant breaks a promise that can
be named. `python -m tests.mutants` applies one after the other to a copy of the sources.
"""
