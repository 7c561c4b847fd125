"""The bytes of a zarr hierarchy, in a folder or behind any URL that fsspec reads.

zarr takes a chunk that is not there for one that holds the fill value alone. The store here
remembers what was asked for and is not there, so that a reader can tell the two apart, and
keeps apart what does not exist and what could not be asked for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from domainseg.errors import InputError, sentence
from domainseg.images.files import Location, damaged

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
ATTEMPTS = 3
"""Tries of a request that fails for other reasons than a missing object; URLs only."""
PAUSE_S = 0.5
"""Before the second try; each further pause is twice the last."""
TIMEOUT_S = 30.0
"""For a server to take a connection, and between two packets of its answer."""
BLOSC_HEADER = 16
"""Bytes of a Blosc frame's header; the last four are the length of the frame."""
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_CLOSED = (401, 403)
"""What servers of objects answer for one that does not exist, where it may not be listed."""
_GONE = (*_CLOSED, 404, 410)
_VERSION = {
    "etag", "content-md5", "content_md5", "md5hash", "digest", "last-modified", "last_modified",
    "lastmodified", "updated", "mtime", "created",
}  # fmt: skip
"""What file systems call the checksum or the last change of an object, in lower case."""


class ChunkStore(Store):
    """Read-only objects below ``root`` of an fsspec file system; safe to use from threads.

    It is not handed on to a forked process: file systems hold connections.

    Attributes:
        location: the folder or URL, for errors.
        missing: keys that were asked for and are not there.
        documents: the metadata that was read, by key.
        framed: arrays whose objects are Blosc frames.
    """

    def __init__(self, fs: Any, root: str, location: Location) -> None:
        super().__init__(read_only=True)
        self.fs = fs
        self.root = root
        self.location = location
        self.missing: set[str] = set()
        self.documents: dict[str, bytes] = {}
        self.framed: set[str] = set()

    @property
    def is_remote(self) -> bool:
        """Whether requests take their time."""
        return not isinstance(self.location, Path)

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> bytes | None:
        """Return the bytes of ``key``, or of a part of it; None where there is no such object.

        Raises:
            InputError: when the disk or server does not give an answer.
        """
        path = f"{self.root}/{key}"
        for attempt in range(ATTEMPTS):
            try:
                return _part(self.fs.cat_file(path, *_limits(byte_range)), byte_range)
            except _ABSENT:
                break
            except Exception as error:  # each file system has errors of its own
                status = getattr(error, "status", None) or 0
                if status in _CLOSED and _is_metadata(key):
                    break
                final = not self.is_remote or 400 <= status < 500 or attempt == ATTEMPTS - 1
                if final:
                    raise unanswered(self.location, error) from error
                time.sleep(PAUSE_S * 2**attempt)
        self.missing.add(key)
        return None

    def document(self, key: str) -> dict[str, Any] | None:
        """Return the JSON object ``key``, None where it is not there.

        Raises:
            InputError: when it is no JSON object, or there is no answer.
        """
        data = self.fetch(key)
        if data is None:
            return None
        self.documents[key] = data
        try:
            found = json.loads(data)
        except ValueError as error:
            raise damaged(self.location, "OME-Zarr") from error
        if not isinstance(found, dict):
            raise damaged(self.location, "OME-Zarr")
        return found

    def version(self, key: str) -> str:
        """Return size, and checksum or time of the last change, of ``key``; "absent" for none.

        Raises:
            InputError: when there is no answer.
        """
        try:
            info = self.fs.info(f"{self.root}/{key}")
        except _ABSENT as error:
            # fsspec calls every failure of HTTP a file that is not there.
            cause = error.__cause__
            if cause is not None and getattr(cause, "status", None) not in _GONE:
                raise unanswered(self.location, cause) from error
            return "absent"
        except Exception as error:  # each file system has errors of its own
            raise unanswered(self.location, error) from error
        told = {name: str(info[name]) for name in info if name.lower() in _VERSION}
        return json.dumps({"size": info.get("size"), **told}, sort_keys=True)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of ``key`` as zarr wants them.

        Raises:
            ValueError: when they are cut, where the decoders would not see it.
        """
        data = await asyncio.to_thread(self.fetch, key, byte_range)
        if data is None:
            return None
        if byte_range is None and not _is_metadata(key) and self._array_of(key) in self.framed:
            check_blosc(data)
        if (
            isinstance(byte_range, RangeByteRequest)
            and len(data) < byte_range.end - byte_range.start
        ):
            raise ValueError(f"{len(data)} of {byte_range.end - byte_range.start} bytes")
        return prototype.buffer.from_bytes(data)

    def _array_of(self, key: str) -> str:
        """Return the array that an object belongs to, "" for none that is framed."""
        return next((name for name in self.framed if key.startswith(f"{name}/")), "")

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several parts of objects."""
        parts = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*parts))

    async def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        return await asyncio.to_thread(self.fetch, key) is not None

    def __eq__(self, value: object) -> bool:
        return isinstance(value, ChunkStore) and value.location == self.location

    @property
    def supports_writes(self) -> bool:
        """Nothing is written."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Nothing is deleted."""
        return False

    @property
    def supports_listing(self) -> bool:
        """A plain web server lists nothing, so nothing here is listed."""
        return False

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse to write."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse to delete."""
        self._check_writable()

    def list(self) -> AsyncIterator[str]:
        """Refuse to list."""
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse to list."""
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse to list."""
        raise NotImplementedError


def open_store(location: Location) -> ChunkStore:
    """Return the store of a folder or URL; nothing is read.

    Raises:
        InputError: when no package here reads such URLs.
    """
    if isinstance(location, Path):
        return ChunkStore(fsspec.filesystem("file"), str(location.absolute()), location)
    options: dict[str, Any] = {}
    scheme = location.partition(":")[0].lower()
    try:
        if scheme in ("http", "https"):
            import aiohttp

            wait = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
            options["client_kwargs"] = {"timeout": wait}
        fs, root = fsspec.url_to_fs(location, **options)
    except (ImportError, ValueError) as error:
        raise InputError(
            sentence(
                location,
                found=f"no package that reads {scheme} URLs ({error})",
                wanted="one that fsspec knows",
                fix="install it, or copy the image to a folder",
            )
        ) from error
    return ChunkStore(fs, root.rstrip("/"), location)


def check_blosc(data: bytes) -> None:
    """Refuse a Blosc frame that is shorter than its header says.

    The decoder believes the header and reads on behind the end of what it was given.

    Raises:
        ValueError: when it is cut.
    """
    if len(data) < BLOSC_HEADER or int.from_bytes(data[12:BLOSC_HEADER], "little") > len(data):
        raise ValueError("a cut Blosc frame")


def unanswered(location: Location, error: BaseException) -> InputError:
    """Return the error for a folder or server that does not give what it may have."""
    status = getattr(error, "status", None)
    reason = f"HTTP status {status}" if status else getattr(error, "strerror", None)
    reason = reason or type(error).__name__
    if isinstance(location, Path):
        found, wanted = f"an error of the system ({reason})", "a folder that can be read"
        fix = "check the disk or the network share it lies on"
    else:
        found, wanted = f"no answer ({reason})", "an OME-Zarr image at that address"
        fix = "check the address and the network"
    return InputError(sentence(location, found=found, wanted=wanted, fix=fix))


def _is_metadata(key: str) -> bool:
    return PurePosixPath(key).name in METADATA


def _limits(byte_range: ByteRequest | None) -> tuple[int | None, int | None]:
    match byte_range:
        case RangeByteRequest(start=start, end=end):
            return start, end
        case OffsetByteRequest(offset=offset):
            return offset, None
        case SuffixByteRequest(suffix=suffix):
            return -suffix, None
        case _:
            return None, None


def _part(data: bytes, byte_range: ByteRequest | None) -> bytes:
    """Return the part that was asked for: a server that knows no ranges sends everything."""
    match byte_range:
        case RangeByteRequest(start=start, end=end) if len(data) > end - start:
            return data[start:end]
        case SuffixByteRequest(suffix=suffix) if len(data) > suffix:
            return data[-suffix:]
        case _:
            return data
