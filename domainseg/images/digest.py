"""The identity of an image: what a resumed run compares, and objects' ids are made of."""

from __future__ import annotations

import configparser
import hashlib
import html
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import tifffile

from domainseg.images.files import (
    DAMAGE,
    existing_file,
    location_of,
    naming_system_errors,
)
from domainseg.images.ome_zarr_image import is_ome_zarr
from domainseg.images.ome_zarr_metadata import read_multiscales
from domainseg.images.zarr_chunks import open_chunks
from domainseg.images.zarr_store import ChunkStore, open_store

REQUESTS = 32
"""Chunks asked for at the same time."""
BATCH = 4096
"""Chunks whose answers are held at the same time."""
TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
INDEX_ENDINGS = (".vms", ".vmu")


def image_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of an image in hexadecimal; files are streamed.

    - A file: of its bytes. Where an image is several files (OME-TIFF sets, MRXS, VMS), of the
      names and bytes of all of them.
    - An OME-Zarr folder: of sorted relative names and bytes of every file in it.
    - A URL: of its metadata documents, and of every chunk's name, size and what the file
      system tells of its version (ETag, checksum, time of the last change); no chunk is
      downloaded. Where sizes alone are told, a change that keeps them stays hidden.

    Raises:
        MissingInputError: when nothing is there, or the file is empty.
        InputError: when it cannot be read, or a server does not answer.
    """
    location = location_of(path)
    if not isinstance(location, Path):
        return _of_url(location)
    if is_ome_zarr(location):
        return _of_files(location, [file for file in location.rglob("*") if file.is_file()])
    companions = _companions(existing_file(location))
    if companions:
        return _of_files(location.parent, [location, *companions])
    return _of_bytes(location)


def _of_bytes(path: Path) -> str:
    with naming_system_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_files(root: Path, files: Iterable[Path]) -> str:
    """Return the digest of sorted names below ``root``, each with the digest of its bytes."""
    digest = hashlib.sha256()
    for name, path in sorted((file.relative_to(root).as_posix(), file) for file in files):
        digest.update(f"{name}\0{_of_bytes(path)}\n".encode())
    return digest.hexdigest()


def _companions(path: Path) -> list[Path]:
    """Return the other files that an image file names, or that belong to it by its name."""
    ending = path.suffix.lower()
    if ending == ".mrxs":
        return [file for file in path.with_suffix("").rglob("*") if file.is_file()]
    names: set[str] = set()
    if ending in INDEX_ENDINGS:
        names = _named_in_index(path)
    elif ending in TIFF_ENDINGS:
        names = _named_in_ome_xml(path)
    files = {path.parent / name for name in names if name} - {path}
    return [file for file in files if file.is_file()]


def _named_in_index(path: Path) -> set[str]:
    """Return the values of a VMS or VMU index, file names among them."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    with naming_system_errors(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        parser.read_string(text)
    except configparser.Error:
        return set()
    return {value for section in parser.sections() for _, value in parser.items(section)}


def _named_in_ome_xml(path: Path) -> set[str]:
    """Return the files that the OME-XML of a TIFF names."""
    try:
        with tifffile.TiffFile(path) as tif:
            xml = (tif.ome_metadata or "") if tif.is_ome else ""
    except DAMAGE:  # no TIFF has no companions; opening it is another's business
        return set()
    names = re.findall(r'\b(?:FileName|MetadataFile)="([^"]*)"', xml)
    return {html.unescape(name) for name in names}


def _of_url(url: str) -> str:
    store = open_store(url)
    digest = hashlib.sha256()
    pyramids = [open_chunks(store, image) for image in read_multiscales(store)]
    for name, data in sorted(store.documents.items()):
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    keys = (key for chunks in pyramids for key in chunks.names())
    with ThreadPoolExecutor(REQUESTS) as pool:
        for batch in _batches(keys):
            for line in pool.map(partial(_line, store), batch):
                digest.update(line)
    return digest.hexdigest()


def _line(store: ChunkStore, key: str) -> bytes:
    return f"{key}\0{store.version(key)}\n".encode()


def _batches(keys: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(keys, BATCH)):
        yield batch
