"""Sections of a report that judges defects by rules."""
