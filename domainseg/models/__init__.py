"""Architectures, encoders and heads: one file each, listed in the catalogue."""
