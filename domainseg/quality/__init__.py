"""The arithmetic of a verdict: intervals, quartiles, dispersion, bootstrap."""
