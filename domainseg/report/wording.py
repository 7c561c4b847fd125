"""What every report says of itself."""

from __future__ import annotations

FOOTER = (
    "For research and process development. Not a medical device; no conformity with "
    "ISO 10110 or MIL-PRF-13830B is claimed."
)
