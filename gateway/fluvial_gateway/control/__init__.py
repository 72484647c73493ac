"""The control API: what operators, the command line and the dashboard speak to."""
