"""Loaders: one file per layout on disk, each opens as a ``Dataset``."""
