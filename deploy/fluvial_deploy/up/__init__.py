"""The supervisor: everything on one machine, from one command."""
