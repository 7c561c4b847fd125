"""Heads: targets, loss and map encoding of one task in one file, because they change together."""
