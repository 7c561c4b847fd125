"""Names of what a run leaves in its folder, for those who look for it without writing any."""

from __future__ import annotations

TABLE = "objects.parquet"
LABELS = "labels.tif"
LABEL_STORE = "labels.ome.zarr"
OVERLAY = "overlay.png"
COCO = "objects.coco.json"
PANOPTIC = "panoptic.json"
PANOPTIC_PNGS = "panoptic"
"""Folder of the PNG that belongs to it."""
