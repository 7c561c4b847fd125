"""The command line: the only place that prints.

Nothing here imports torch before a verb runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with the exit code its errors carry."""
    from domainseg.cli.app import run

    sys.exit(run(sys.argv[1:]))
