"""Download a data set by its card; every archive is checked before any is unpacked."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pooch

from domainseg.errors import InputError, OutputError, sentence
from domainseg.loaders.cards import Archive, Card

TIMEOUT_S = 30.0
"""Longest wait for the server to say anything."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One archive that was downloaded and unpacked.

    Attributes:
        url: where it came from.
        sha256: of what came, to be recorded in the card where it was not.
        size_bytes: of what came.
        verified: whether the card recorded the sha256, which then agreed.
    """

    url: str
    sha256: str
    size_bytes: int
    verified: bool


def fetch(card: Card, root: Path) -> tuple[Fetched, ...]:
    """Download and unpack every archive of a card into ``root``, made if it is not there.

    An archive is checked before anything of it is unpacked; the archives themselves
    are not kept.

    Raises:
        InputError: when the card has no archive, an address does not answer with a file,
            or the file is not what the card says or not a zip.
        OutputError: when ``root`` cannot be written to.
    """
    if not card.archives:
        raise InputError(
            sentence(
                card.title,
                found="no archive that can be downloaded",
                wanted="an address in its card",
                fix=f"get it from {card.url}",
            )
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as folder:
            files = [(archive, _download(archive, Path(folder))) for archive in card.archives]
            fetched = tuple(_checked(archive, path) for archive, path in files)
            for archive, path in files:
                unpack(path, root / archive.into)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            sentence(
                root,
                found=error.strerror or str(error),
                wanted="a folder to write to",
                fix="free some space or choose another folder",
            )
        ) from error
    return fetched


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip below ``folder``, without what the packing computer's desktop added.

    Raises:
        InputError: when it is damaged, or a name in it leads out of the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not _is_litter(name)]
            for name in members:
                place = PurePosixPath(name)
                if place.is_absolute() or ".." in place.parts:
                    raise InputError(
                        sentence(
                            path.name,
                            found=f"the name {name!r}, which leads out of the folder",
                            wanted="names below it",
                            fix="do not unpack it",
                        )
                    )
            folder.mkdir(parents=True, exist_ok=True)
            archive.extractall(folder, members)
    except zipfile.BadZipFile as error:
        raise InputError(
            sentence(
                path.name,
                found="no zip file, or a truncated one",
                wanted="a whole zip file",
                fix="download it again",
            )
        ) from error


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or ".DS_Store" in parts


def _download(archive: Archive, folder: Path) -> Path:
    """Return the downloaded file, its checksum not yet looked at."""
    name = PurePosixPath(urlsplit(archive.url).path).name or "archive"
    own = Path(tempfile.mkdtemp(dir=folder))
    getter = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    try:
        getter(archive.url, str(own / name), None)
    except OSError as error:
        # What the connection raises is an OSError without a number; the disk's have one.
        if error.errno is not None:
            raise
        found = f"no answer ({type(error).__name__})"
        if (answer := getattr(error, "response", None)) is not None:
            found = f"HTTP status {answer.status_code}"
            answer.close()
        raise InputError(
            sentence(
                archive.url,
                found=found,
                wanted="the file",
                fix="check the connection, or look for a new address on the publisher's page",
            )
        ) from error
    return own / name


def _checked(archive: Archive, path: Path) -> Fetched:
    """Return what came; raise InputError when it is not what the card records."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    for found, wanted, what in (
        (size, archive.size_bytes, "bytes"),
        (digest, archive.sha256 or None, "as sha256"),
    ):
        if wanted is not None and found != wanted:
            raise InputError(
                sentence(
                    archive.url,
                    found=f"{found} {what}",
                    wanted=f"{wanted}, as its card records",
                    fix="try again; if it stays, the publisher has changed the file",
                )
            )
    return Fetched(archive.url, digest, size, verified=bool(archive.sha256))
