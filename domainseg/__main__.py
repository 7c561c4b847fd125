"""``python -m domainseg`` is the command line."""

from __future__ import annotations

from domainseg.cli import main

if __name__ == "__main__":
    main()
