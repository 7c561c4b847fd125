"""Objects: decoded from maps, measured, matched, outlined, encoded; no torch."""
