"""Images in and label images out; arrays are channel-first, planes ``(y, x)``."""

from domainseg.images.damage import find_damaged
from domainseg.images.damage_log import DamagedTileError
from domainseg.images.digest import image_sha256
from domainseg.images.image import Image, Level
from domainseg.images.labels import read_labels, write_labels
from domainseg.images.ome_zarr_image import is_ome_zarr
from domainseg.images.opening import FORMATS, open_image

__all__ = [
    "FORMATS",
    "DamagedTileError",
    "Image",
    "Level",
    "find_damaged",
    "image_sha256",
    "is_ome_zarr",
    "open_image",
    "read_labels",
    "write_labels",
]
