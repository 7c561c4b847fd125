"""Images in and label images out; arrays are channel-first, planes ``(y, x)``."""

from domainseg.images.files import image_sha256
from domainseg.images.image import Image, Level
from domainseg.images.labels import read_labels, write_labels
from domainseg.images.opening import FORMATS, open_image

__all__ = [
    "FORMATS",
    "Image",
    "Level",
    "image_sha256",
    "open_image",
    "read_labels",
    "write_labels",
]
