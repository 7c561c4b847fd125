"""Tiles of an image and the network's pass over them."""
