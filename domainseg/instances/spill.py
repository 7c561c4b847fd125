"""Rows that wait for their turn: in memory while they are few, on disk after."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from domainseg.atomic import make_folder, writing_below
from domainseg.instances.object_text import GEOMETRY, RLE

_ROW_BYTES = 1 << 10
"""What a row of the table takes, its texts aside."""


class Spill:
    """Rows of numbered buckets, each taken out once.

    Args:
        folder: where what is too much for memory goes; created when it is needed, and
            empty again when all buckets were taken.
        held_bytes: what may be held in memory.
    """

    def __init__(self, folder: Path, *, held_bytes: int) -> None:
        self._folder, self._limit = folder, held_bytes
        self._held: dict[int, list[pl.DataFrame]] = {}
        self._held_bytes = 0
        self._files: dict[int, list[Path]] = {}

    def put(self, bucket: int, rows: pl.DataFrame) -> None:
        """Keep rows for a bucket.

        Raises:
            OutputError: when there is no room for them.
        """
        self._held.setdefault(bucket, []).append(rows)
        self._held_bytes += _size_of(rows)
        if self._held_bytes > self._limit:
            self._write()

    def take(self, bucket: int) -> pl.DataFrame | None:
        """Return all rows of a bucket by ascending label, None where there are none."""
        held = self._held.pop(bucket, [])
        self._held_bytes -= sum(map(_size_of, held))
        frames = [_read(path) for path in self._files.pop(bucket, [])] + held
        return pl.concat(frames).sort("label") if frames else None

    def _write(self) -> None:
        make_folder(self._folder)
        for bucket, frames in self._held.items():
            files = self._files.setdefault(bucket, [])
            path = self._folder / f"objects-{bucket}-{len(files)}.arrow"
            buffer = io.BytesIO()
            # Strings of the oldest kind hold their own bytes only; the newer are views of
            # shared ones, of which every file would get all.
            oldest = pl.CompatLevel.oldest()
            pl.concat(frames).write_ipc(buffer, compression="lz4", compat_level=oldest)
            with writing_below(self._folder):
                path.write_bytes(buffer.getbuffer())
            files.append(path)
        self._held, self._held_bytes = {}, 0


def _size_of(rows: pl.DataFrame) -> int:
    texts = sum(int(rows[name].str.len_bytes().sum()) for name in (GEOMETRY, RLE) if name in rows)
    return texts + _ROW_BYTES * rows.height


def _read(path: Path) -> pl.DataFrame:
    rows = pl.read_ipc(io.BytesIO(path.read_bytes()))
    path.unlink()
    return rows
