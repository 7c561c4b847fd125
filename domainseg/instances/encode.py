"""Objects as COCO run-length encodings and back, without a dense mask.

COCO's RLE (pycocotools) counts pixels column after column: so many outside the
object, so many inside, and so on. `Instances` holds runs along rows. Both ways
cost time and memory by the objects, never by objects times image: encoding by their
runs, decoding by their pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from domainseg.errors import InputError, sentence
from domainseg.instances.rle_text import rle_texts
from domainseg.instances.runs import ObjectRuns, runs_of_instances
from domainseg.records import Instances

Ints = NDArray[np.int64]

_CHUNK_PX = 1 << 22
_MAX_PX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Rle:
    """The pixels of one object as COCO's compressed RLE; ``shape`` is ``(H, W)`` of the image."""

    shape: tuple[int, int]
    counts: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"size": [H, W], "counts": str}``, as JSON holds it and pycocotools reads it."""
        return {"size": list(self.shape), "counts": self.counts.decode("ascii")}

    def to_mask(self) -> NDArray[np.bool_]:
        """Return the pixels as bool ``(H, W)``; InputError where the counts do not fit."""
        counts = _counts_of_rle(self, self.shape, "segmentation")
        inside = np.arange(len(counts)) % 2 == 1
        return np.repeat(inside, counts).reshape(self.shape[::-1]).T

    def area_px(self) -> int:
        """Return the number of pixels."""
        return int(coco_mask.area(self.to_dict()))

    def bbox(self) -> tuple[float, float, float, float]:
        """Return ``(x, y, width, height)`` of the pixels, px, in COCO's order."""
        x, y, width, height = coco_mask.toBbox(self.to_dict()).tolist()
        return x, y, width, height


def encode_rle(instances: Instances) -> list[Rle]:
    """Return the RLE of each object, byte for byte what pycocotools makes of its dense mask.

    Raises:
        InputError: for an image of 2**32 pixels or more, which COCO's counts cannot hold.
    """
    text, offsets = encode_runs(runs_of_instances(instances))
    return [Rle(instances.shape, text[a:b].tobytes()) for a, b in pairwise(offsets.tolist())]


def encode_runs(objects: ObjectRuns) -> tuple[NDArray[np.uint8], Ints]:
    """Return the compressed counts of all objects, ASCII in uint8, and their offsets ``(N + 1,)``.

    ``objects.shape`` is that of the whole image.

    Raises:
        InputError: for an image of 2**32 pixels or more, which COCO's counts cannot hold.
    """
    height, width = objects.shape
    require_countable(objects.shape)
    text, offsets = rle_texts(objects.runs, objects.offsets, height, width)
    return text, offsets


def decode_rle(
    rles: Sequence[Rle],
    *,
    shape: tuple[int, int],
    ids: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
) -> Instances:
    """Return the objects of ``rles``; `encode_rle` of the result gives the same bytes.

    By default ids count from 1, classes are 0 and scores 1.

    Raises:
        InputError: when counts do not add up to ``shape`` or an object has no pixel.
    """
    height, width = shape
    require_countable(shape)
    columns = [
        _runs_of_rle(rle, shape, f"segmentation {number}") for number, rle in enumerate(rles)
    ]
    areas = np.array([length.sum() for _, length in columns], np.int64)
    pieces: list[Ints] = []
    for low, high in _chunks(areas):
        number = [len(start) for start, _ in columns[low:high]]
        owners, begin, length = _transposed(
            np.repeat(np.arange(high - low), number),
            np.concatenate([start for start, _ in columns[low:high]]),
            np.concatenate([length for _, length in columns[low:high]]),
            shape=(width, height),
        )
        pieces.append(np.stack([owners + low, begin // width, begin % width, length], 1))
    table = np.concatenate(pieces) if pieces else np.zeros((0, 4), np.int64)
    count = len(rles)
    return Instances(
        ids=np.arange(1, count + 1) if ids is None else np.array(ids, np.int64),
        boxes=_boxes(rles),
        runs=np.ascontiguousarray(table[:, 1:]),
        offsets=np.searchsorted(table[:, 0], np.arange(count + 1)).astype(np.int64),
        classes=np.zeros(count, np.int16) if classes is None else np.array(classes, np.int16),
        scores=np.ones(count, np.float32) if scores is None else np.array(scores, np.float32),
        shape=(height, width),
    )


def countable(shape: tuple[int, int]) -> bool:
    """Return whether COCO's RLE can hold an image of ``shape``: below 2**32 pixels."""
    return shape[0] * shape[1] <= _MAX_PX


def require_countable(shape: tuple[int, int]) -> None:
    """Raise InputError for an image that COCO's RLE cannot hold."""
    if not countable(shape):
        raise InputError(
            sentence(
                "COCO RLE",
                found=f"an image of {shape[0]} x {shape[1]} px",
                wanted="fewer than 2**32 px, the most its counts can hold",
                fix="export outlines instead",
            )
        )


def read_segmentation(segmentation: Any, *, shape: tuple[int, int], where: object) -> Rle:
    """Return the RLE of any of COCO's three forms: polygons, counts as a list, counts as text.

    Polygons are rasterised and united by pycocotools, on an image of ``shape`` (H, W).

    Raises:
        InputError: for what is none of them, or is of another size.
    """
    if isinstance(segmentation, Mapping) and {"size", "counts"} <= set(segmentation):
        counts = segmentation["counts"]
        if isinstance(counts, str):
            counts = counts.encode()
        height, width = map(int, segmentation["size"])
        if isinstance(counts, bytes):
            rle = Rle((height, width), counts)
            _counts_of_rle(rle, shape, where)
            return rle
        plain = np.array(counts, np.int64)
        _require_size((height, width), shape, where)
        _require_sum(plain, shape, where)
        return _compressed(plain, shape)
    polygons = segmentation if isinstance(segmentation, list | tuple) else []
    # pycocotools would take four numbers for a box, so the length is checked here.
    if not polygons or any(len(one) < 6 or len(one) % 2 for one in polygons):
        raise _malformed(shape, where)
    return Rle(shape, coco_mask.merge(coco_mask.frPyObjects(list(polygons), *shape))["counts"])


def _chunks(areas: Ints) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of objects of at most 4 Mpx together; a larger one stands alone."""
    low, held = 0, 0
    for row, area in enumerate(areas.tolist()):
        if held and held + area > _CHUNK_PX:
            yield low, row
            low, held = row, 0
        held += area
    if low < len(areas):
        yield low, len(areas)


def _transposed(
    owners: Ints, starts: Ints, lengths: Ints, *, shape: tuple[int, int]
) -> tuple[Ints, Ints, Ints]:
    """Return the same pixels as runs along the other axis: owners, starts and lengths.

    ``starts`` are linear indices in an image of ``shape``, those returned in its
    transpose; both are sorted by owner, then index. Runs are cut at the end of a line.
    """
    lines, width = shape
    before = np.cumsum(lengths) - lengths
    pixels = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    turned = pixels % width * lines + pixels // width
    keys = np.sort(np.repeat(owners, lengths) * (lines * width) + turned)
    owner, index = np.divmod(keys, lines * width)
    breaks = np.ones(len(keys), bool)
    breaks[1:] = (np.diff(index) != 1) | (np.diff(owner) != 0)
    breaks |= index % lines == 0
    first = np.flatnonzero(breaks)
    return owner[first], index[first], np.diff(first, append=len(keys))


def _compressed(counts: Ints, shape: tuple[int, int]) -> Rle:
    plain = {"counts": counts, "size": list(shape)}
    return Rle(shape, coco_mask.frPyObjects(plain, *shape)["counts"])


def _runs_of_rle(rle: Rle, shape: tuple[int, int], where: object) -> tuple[Ints, Ints]:
    """Return starts and lengths of the runs inside, column-major; a length may be 0."""
    counts = _counts_of_rle(rle, shape, where)
    inside = counts[1::2]
    if not inside.any():
        raise InputError(
            sentence(
                where,
                found="no pixel",
                wanted="an object of at least one pixel",
                fix="leave the object out",
            )
        )
    return np.cumsum(counts)[::2][: len(inside)], inside


def _counts_of_rle(rle: Rle, shape: tuple[int, int], where: object) -> Ints:
    """Return the counts of an RLE that fits an image of ``shape``; refuse any other."""
    _require_size(rle.shape, shape, where)
    counts = _uncompressed(rle.counts)
    if counts is None:
        raise _malformed(shape, where)
    _require_sum(counts, shape, where)
    return counts


def _uncompressed(counts: bytes) -> Ints | None:
    """Return the counts of a compressed RLE, or None when it breaks off.

    The format is that of pycocotools (maskApi.c, rleToString), which has no
    function for this short of a dense mask: little-endian groups of five bits
    with a sixth for "goes on", in two's complement; from the fourth on, the
    number is the difference from the count two before.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    if place.max() > 7:
        return None
    numbers = np.add.reduceat((codes & 31) << (5 * place), first)
    numbers -= np.where(codes[last] & 16, 32 << (5 * place[last]), 0)
    for chain in (1, 2):
        numbers[chain::2] = np.cumsum(numbers[chain::2])
    return numbers


def _malformed(shape: tuple[int, int], where: object) -> InputError:
    return InputError(
        sentence(
            where,
            found="a segmentation that cannot be read",
            wanted=f"polygons of three points or more, or RLE of {shape[0]} x {shape[1]} px",
            fix="export the annotations again",
        )
    )


def _require_sum(counts: Ints, shape: tuple[int, int], where: object) -> None:
    if counts.min(initial=0) < 0 or counts.sum() != shape[0] * shape[1]:
        raise _malformed(shape, where)


def _require_size(found: tuple[int, int], shape: tuple[int, int], where: object) -> None:
    if found != tuple(shape):
        raise InputError(
            sentence(
                where,
                found=f"RLE of {found[0]} x {found[1]} px",
                wanted=f"the image's {shape[0]} x {shape[1]}",
                fix="pair the annotations with the image they were made on",
            )
        )


def _boxes(rles: Sequence[Rle]) -> Ints:
    """Return the boxes ``(N, 2, 2)`` of the objects, half-open."""
    if not rles:
        return np.zeros((0, 2, 2), np.int64)
    x, y, width, height = coco_mask.toBbox([rle.to_dict() for rle in rles]).astype(np.int64).T
    return np.stack([np.stack([y, x], 1), np.stack([y + height, x + width], 1)], 1)
