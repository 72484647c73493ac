"""The command line's program: `fluvial`, or `python -m fluvial_deploy`."""

from __future__ import annotations

from fluvial_deploy.cli.commands import cli


def main() -> None:
    """Run one command; ends the process with its exit code."""
    cli()


if __name__ == "__main__":
    main()
